// Fetches the page again when something has changed, and replaces the parts that show it. Forms stay as they are.
const state = document.getElementById("connection");
let due;
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(part.id);
    if (now && now.innerHTML !== part.innerHTML && !part.contains(document.activeElement) && !part.querySelector("details[open]")) {
      part.replaceChildren(...now.childNodes);
    }
  }
}
const source = new EventSource("/events");
source.addEventListener("open", () => { state.textContent = "live"; });
source.addEventListener("error", () => { state.textContent = "not connected; trying again"; });
source.addEventListener("changed", () => {
  clearTimeout(due);
  due = setTimeout(() => refresh().catch(() => {}), 100);
});
addEventListener("pagehide", () => source.close());
