#!/bin/sh
# Fetches the files of days that never came: fetch-days.sh FROM TO, two dates. Here the other side is a file; a download belongs in its place.
# A day is written under another name first, so that nobody reads half of it; a day that is there stays as it is, so running it twice does no harm.
set -eu
from=$1 to=$2
export=lake/agency/orders.jsonl
test -r "$export" || exit 69 # unavailable: the error is `transient`, and a `retry` asks again

for day in $(sed -n 's/.*"created_at": "\([0-9-]*\)T.*/\1/p' "$export" | sort -u); do
  if [ "$(printf '%s\n' "$from" "$day" "$to" | sort | sed -n 2p)" != "$day" ]; then continue; fi
  folder=lake/orders/day=$day
  if [ -e "$folder/orders.jsonl" ]; then continue; fi
  mkdir -p "$folder"
  grep "\"created_at\": \"${day}T" "$export" > "$folder/.orders.part"
  mv "$folder/.orders.part" "$folder/orders.jsonl"
  echo "fetched $day" >&2
  fetched="${fetched-}${fetched+,}\"$day\""
done
echo "{\"fetched\": [${fetched-}]}"
