//! Mistakes in a workflow and the files it includes, and how they look on a terminal: file, line, column, the line itself, and what was probably meant.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::{Serialize, Serializer};

use crate::error::{Error, Hint};
use crate::yaml::tree::Place;

/// How many mistakes are reported at once. Beyond this, a longer list explains nothing more.
const MAX_DIAGNOSTICS: usize = 100;
/// How many characters of a source line are shown; the renderer cuts longer lines around the mistake.
const LINE_WIDTH: usize = 140;
/// How many bytes of a line the renderer receives on either side of the mistake, so that it never draws a line of a megabyte.
const LINE_BYTES: usize = 2_000;

/// One mistake in a workflow or a price book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1; 0 if the mistake concerns the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 if the mistake concerns the file as a whole.
    pub column: usize,
    /// The bytes of the text that are wrong.
    #[serde(skip)]
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// A word or two shown beside the underlined text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What to do, or what was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// All mistakes found in one workflow and the files that it includes, file by file, in the order of the text. Never empty when returned as
/// an error.
///
/// [`Display`](fmt::Display) gives plain text for people; [`Diagnostics::render`] adds colors. Serialized, it is a list of
/// `{file, line, column, message, help}` for programs.
///
/// ```
/// use repair_core::plugin::Registry;
/// use repair_core::workflow::Workflow;
///
/// let text = "workflow: nightly\nkind: dag\nsteps:\n  tidy: { detekt: gaps }\n";
/// let mistakes = Workflow::parse("nightly.yaml", text, &Registry::default()).unwrap_err();
/// let first = mistakes.iter().next().unwrap();
/// assert_eq!((first.line, first.column), (4, 11));
/// assert_eq!(first.help.as_deref(), Some("did you mean `detect`?"));
/// ```
#[derive(Debug, Clone)]
pub struct Diagnostics {
    /// The file that was read, and then those that it includes. A [`Place`] says which one it is in.
    files: Vec<SourceFile>,
    /// What the mistakes prevent, such as `cannot run`.
    consequence: &'static str,
    all: Vec<Diagnostic>,
    left_off: usize,
}

/// A file with its text.
#[derive(Debug, Clone)]
struct SourceFile {
    name: Arc<str>,
    text: Arc<str>,
}

impl SourceFile {
    fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The line of a byte and its column in characters, both from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..floor(&self.text, at.min(self.text.len()))];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.bytes().filter(|&byte| byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl Diagnostics {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { files: vec![SourceFile::new(file, text)], consequence: "cannot run", all: Vec::new(), left_off: 0 }
    }

    /// The same, for a file that is not something to run.
    pub(crate) fn of_definitions(self) -> Self {
        Self { consequence: "cannot be used", ..self }
    }

    /// Adds a file that the first one includes, and returns the number that places in it have.
    pub(crate) fn add_file(&mut self, name: &str, text: &str) -> usize {
        self.files.push(SourceFile::new(name, text));
        self.files.len() - 1
    }

    /// The part of a place where its text contains `needle`; the whole place if it does not.
    pub(crate) fn within(&self, place: Place, needle: &str) -> Place {
        self.files.get(place.file).map_or(place, |file| place.of(needle, &file.text))
    }

    /// The line of a place.
    pub(crate) fn line(&self, place: Place) -> usize {
        self.files.get(place.file).map_or(0, |file| file.position(place.start).0)
    }

    /// The file of a place.
    pub(crate) fn file_of(&self, place: Place) -> String {
        self.files.get(place.file).map_or_else(String::new, |file| file.name.to_string())
    }

    /// Where a place is, as `lake.yaml:3:5`.
    pub(crate) fn at(&self, place: Place) -> String {
        self.files.get(place.file).map_or_else(String::new, |file| {
            let (line, column) = file.position(place.start);
            format!("{}:{line}:{column}", file.name)
        })
    }

    /// A single mistake about a file as a whole.
    pub(crate) fn of_file(file: &str, message: impl Into<String>, help: Option<String>) -> Self {
        let mut diagnostics = Self::new(file, "");
        let file = file.into();
        diagnostics.all.push(Diagnostic { file, line: 0, column: 0, span: 0..0, message: message.into(), label: None, help });
        diagnostics
    }

    /// Whether the list is full, so that describing another mistake would be wasted work.
    pub(crate) fn full(&self) -> bool {
        self.all.len() >= MAX_DIAGNOSTICS
    }

    pub(crate) fn push(&mut self, place: Place, message: String, help: Option<String>) {
        if self.full() {
            self.left_off += 1;
            return;
        }
        let Some(file) = self.files.get(place.file) else { return };
        let text = &file.text;
        let start = floor(text, place.start.min(text.len()));
        let end = floor(text, place.end.clamp(start, text.len()));
        let (line, column) = file.position(start);
        self.all.push(Diagnostic { file: Arc::clone(&file.name), line, column, span: start..end, message, label: None, help });
    }

    /// Drops the mistakes from a place in the list on that were known before.
    pub(crate) fn drop_repeated(&mut self, from: usize) {
        let (known, new) = self.all.split_at(from.min(self.all.len()));
        let is_new = |one: &&Diagnostic| {
            !known.iter().any(|before| before.file == one.file && before.span == one.span && before.message == one.message)
        };
        let new: Vec<Diagnostic> = new.iter().filter(is_new).cloned().collect();
        self.all.truncate(from);
        self.all.extend(new);
    }

    /// Sorts by file and place in the text, and drops repetitions of a message about the same place.
    pub(crate) fn sort(&mut self) {
        let files = &self.files;
        self.all.sort_by_key(|diagnostic| (files.iter().position(|file| file.name == diagnostic.file), diagnostic.span.start));
        self.all.dedup_by(|a, b| a.file == b.file && a.span == b.span && a.message == b.message);
    }

    /// The file that was read. A mistake may be in another file, which it includes; each names its own.
    pub fn file(&self) -> &str {
        self.files.first().map_or("", |file| &file.name)
    }

    /// The mistakes, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.all.iter()
    }

    /// How many mistakes are listed.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Text for a terminal: each mistake with its line, in the style of rustc.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(LINE_WIDTH);
        let mut rendered = String::new();
        for diagnostic in &self.all {
            rendered.push_str(&renderer.render(&[self.group(diagnostic)]));
            rendered.push_str("\n\n");
        }
        let count = self.all.len() + self.left_off;
        let mistakes = if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") };
        let shown = if self.left_off > 0 { format!(", the first {} shown", self.all.len()) } else { String::new() };
        let summary = format!("`{}` {}: {mistakes}{shown}{}", self.file(), self.consequence, self.in_other_files());
        rendered.push_str(&renderer.render(&[Group::with_title(Level::ERROR.primary_title(summary))]));
        rendered
    }

    /// Which included files have mistakes, in words for the summary.
    fn in_other_files(&self) -> String {
        let mut others: Vec<String> = Vec::new();
        for diagnostic in self.all.iter().filter(|diagnostic| &*diagnostic.file != self.file()) {
            let name = format!("`{}`", diagnostic.file);
            if !others.contains(&name) {
                others.push(name);
            }
        }
        if others.is_empty() {
            return String::new();
        }
        let some = if self.all.iter().any(|diagnostic| &*diagnostic.file == self.file()) { ", some of them" } else { "," };
        format!("{some} in the included {}", others.join(", "))
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR.primary_title(diagnostic.message.as_str());
        let group = if diagnostic.line == 0 {
            title.element(Origin::path(&*diagnostic.file))
        } else {
            let (source, span) = self.line_of(diagnostic);
            let annotation = AnnotationKind::Primary.span(span).label(diagnostic.label.as_deref());
            title.element(Snippet::source(source).line_start(diagnostic.line).path(&*diagnostic.file).annotation(annotation))
        };
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    /// The line in which a mistake begins, and its span within that line.
    fn line_of(&self, diagnostic: &Diagnostic) -> (&str, Range<usize>) {
        let text = self.files.iter().find(|file| file.name == diagnostic.file).map_or("", |file| &*file.text);
        let span = diagnostic.span.start.min(text.len())..diagnostic.span.end.min(text.len());
        let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[span.start..].find('\n').map_or(text.len(), |at| span.start + at);
        let from = floor(text, line_start.max(span.start.saturating_sub(LINE_BYTES)));
        let to = floor(text, line_end.min(span.start.saturating_add(LINE_BYTES)));
        let line = text[from..to].trim_end_matches('\r');
        let start = (span.start - from).min(line.len());
        (line, start..(span.end - from).clamp(start, line.len()))
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.all)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        let message = format!("`{}` has mistakes\n\n{diagnostics}", diagnostics.file());
        let file = diagnostics.iter().next().map_or(diagnostics.file(), |first| &*first.file).to_owned();
        Error::invalid(message).because(diagnostics).hint(Hint::CorrectFile { file })
    }
}
