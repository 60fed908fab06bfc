//! Pictures as SVG text, made by pure functions from a part of the model. They know no lake and no page: colours are classes, which the
//! page defines for light and dark, and [`standalone`] for a picture by itself.

pub(crate) mod calendar;
pub(super) mod candles;
pub(super) mod graph;
pub(super) mod heat;
pub(super) mod markup;
pub(super) mod points;
pub(super) mod series;
pub(super) mod timeline;
pub(super) mod times;

use self::markup::{At, Markup};

/// The colours and fonts of pictures.
pub(crate) const STYLE: &str = include_str!("picture.css");

/// A picture, with how wide and high it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    /// What it shows, in words.
    pub(crate) title: String,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(super) body: Markup,
    /// What the page's script shows of a cell under the pointer.
    pub(super) cells: Option<Cells>,
}

/// How wide a chart is that can have any width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// As wide as a page.
    Wide,
    /// As wide as a phone.
    Narrow,
}

impl Size {
    fn width(self) -> f64 {
        match self {
            Self::Wide => 960.0,
            Self::Narrow => 350.0,
        }
    }
}

/// A grid of cells, and what its rows and columns stand for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cells {
    /// The left and the upper edge, then the width and the height of a cell.
    pub(super) place: [f64; 4],
    pub(super) rows: Vec<String>,
    pub(super) columns: Vec<String>,
}

impl Picture {
    /// The text of the picture as an element of a page.
    pub(crate) fn into_element(self) -> String {
        self.element().into_text()
    }

    /// The picture as an element of a page.
    pub(crate) fn element(&self) -> Markup {
        let mut svg = Markup::default();
        let view = format!("0 0 {} {}", At(self.width), At(self.height));
        let (width, height) = (At(self.width), At(self.height));
        svg.open(
            "svg",
            &[
                ("class", &"picture"),
                ("viewBox", &view),
                ("width", &width),
                ("height", &height),
                ("role", &"img"),
                ("aria-label", &self.title),
            ],
        );
        svg.add(&self.body).close("svg");
        svg
    }
}

/// Rows of pictures as one file, with their titles and their own colours: for light and dark by what the reader prefers.
pub(crate) fn standalone(title: &str, rows: &[Vec<(String, Picture)>]) -> String {
    const GAP: f64 = 20.0;
    const TITLE: f64 = 24.0;
    let heading = |row: &[(String, Picture)]| if row.iter().all(|(words, _)| words.is_empty()) { 0.0 } else { TITLE };
    let high = |row: &[(String, Picture)]| heading(row) + row.iter().map(|(_, picture)| picture.height).fold(0.0, f64::max) + GAP * 0.7;
    let wide = |row: &[(String, Picture)]| row.iter().map(|(_, picture)| picture.width + GAP).sum::<f64>();
    let width = rows.iter().map(|row| wide(row)).fold(0.0, f64::max) + GAP;
    let height = rows.iter().map(|row| high(row)).sum::<f64>() + GAP;
    let mut svg = Markup::default();
    svg.open(
        "svg",
        &[
            ("xmlns", &"http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {} {}", At(width), At(height))),
            ("width", &At(width)),
            ("height", &At(height)),
            ("role", &"img"),
            ("class", &"alone"),
        ],
    );
    svg.leaf("title", &[], title).raw("<style>").raw(STYLE).raw("</style>");
    svg.empty("rect", &[("class", &"page"), ("width", &"100%"), ("height", &"100%"), ("rx", &"8")]);
    let mut y = GAP * 0.8;
    for row in rows {
        let mut x = GAP;
        for (words, picture) in row {
            if !words.is_empty() {
                svg.leaf("text", &[("class", &"heading"), ("x", &At(x)), ("y", &At(y + 14.0))], words);
            }
            svg.open("g", &[("transform", &format!("translate({} {})", At(x), At(y + heading(row))))]).add(&picture.body).close("g");
            x += picture.width + GAP;
        }
        y += high(row);
    }
    svg.close("svg").raw("\n");
    svg.into_text()
}

/// A whole number as a coordinate.
#[expect(clippy::cast_precision_loss, reason = "pictures have far fewer parts than a float can count")]
pub(super) fn float(number: usize) -> f64 {
    number as f64
}

/// A count as a coordinate.
#[expect(clippy::cast_precision_loss, reason = "a picture is not exact")]
pub(super) fn float_of(number: u64) -> f64 {
    number as f64
}
