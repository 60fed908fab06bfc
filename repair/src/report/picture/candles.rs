//! Candles of one key. A candle that something is missing from is hollow, with a cross below; a dot below says that repaired rows are in
//! it.

use super::markup::{At, Markup, shortened};
use super::times;
use super::{Picture, float};
use crate::report::model::{Candle, KeyCandles};
use repair_core::model::Zone;

const LEFT: f64 = 52.0;
const TOP: f64 = 22.0;
const HEIGHT: f64 = 96.0;

/// The chart of a key.
pub(in crate::report) fn chart(of: &KeyCandles, zone: &Zone) -> Picture {
    let step = (266.0 / float(of.candles.len().max(1))).clamp(5.0, 38.0);
    let prices = || of.candles.iter().filter_map(|candle| candle.prices).flatten();
    let (low, high) = (prices().fold(f64::INFINITY, f64::min), prices().fold(f64::NEG_INFINITY, f64::max));
    let span = if high > low { high - low } else { 1.0 };
    let y = |price: f64| TOP + HEIGHT * (1.0 - (price - low) / span);
    let right = LEFT + step * float(of.candles.len());
    let mut body = Markup::default();
    body.leaf("text", &[("x", &"0"), ("y", &"12")], shortened(&of.key.to_string(), 24));
    if high >= low {
        for price in [low, high] {
            body.empty("path", &[("class", &"grid"), ("d", &format!("M{} {}H{}", At(LEFT), At(y(price)), At(right)))]);
            body.leaf("text", &[("class", &"soft small end"), ("x", &At(LEFT - 5.0)), ("y", &At(y(price) + 3.6))], short(price));
        }
    }
    let floor = TOP + HEIGHT + 10.0;
    let mut free = 0.0;
    for (index, candle) in of.candles.iter().enumerate() {
        let middle = LEFT + step * (float(index) + 0.5);
        draw(&mut body, candle, middle, (step * 0.3).min(8.0), &y, floor, zone);
        let label = zone.local(candle.at).strftime("%H:%M").to_string();
        if middle - 15.0 >= free {
            body.leaf("text", &[("class", &"soft small mid"), ("x", &At(middle)), ("y", &At(floor + 18.0))], label);
            free = middle + 20.0;
        }
    }
    let incomplete = of.candles.iter().filter(|candle| !candle.complete).count();
    let title = format!("Candles of {}: {} of {} incomplete", of.key, incomplete, of.candles.len());
    Picture { title, width: right + 6.0, height: floor + 24.0, body, cells: None }
}

fn draw(body: &mut Markup, candle: &Candle, middle: f64, half: f64, y: &impl Fn(f64) -> f64, floor: f64, zone: &Zone) {
    body.open("g", &[]);
    let state = if candle.complete { "complete" } else { "incomplete" };
    let when = times::minute(candle.at, zone);
    match candle.prices {
        Some([open, high, low, close]) => {
            let words = format!(
                "{when}: open {}, high {}, low {}, close {}; {state}, {} repaired",
                short(open),
                short(high),
                short(low),
                short(close),
                candle.repaired
            );
            body.leaf("title", &[], words);
            let way = if close >= open { "up" } else { "down" };
            body.empty("path", &[("class", &way), ("d", &format!("M{} {}V{}", At(middle), At(y(high)), At(y(low))))]);
            let (top, bottom) = (y(open.max(close)), y(open.min(close)));
            let class = if candle.complete { way.to_owned() } else { format!("{way} open") };
            body.empty(
                "rect",
                &[
                    ("class", &class),
                    ("x", &At(middle - half)),
                    ("y", &At(top)),
                    ("width", &At(half * 2.0)),
                    ("height", &At((bottom - top).max(1.0))),
                ],
            );
        }
        None => {
            body.leaf("title", &[], format!("{when}: no row; {state}"));
        }
    }
    if !candle.complete {
        let cross = format!("M{} {}l6 6m0 -6l-6 6", At(middle - 3.0), At(floor - 3.0));
        body.empty("path", &[("class", &"alarm"), ("d", &cross)]);
    } else if candle.repaired > 0 {
        body.empty("circle", &[("class", &"flag"), ("cx", &At(middle)), ("cy", &At(floor)), ("r", &"2.6")]);
    }
    body.close("g");
}

/// A number to six significant digits.
pub(super) fn short(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let magnitude = number.abs().log10().floor();
    if !(-4.0..9.0).contains(&magnitude) {
        return format!("{number:.3e}");
    }
    let digits = (1..=9).rev().find(|digits| magnitude + f64::from(*digits) < 6.0).unwrap_or(0);
    let text = format!("{number:.*}", usize::from(u8::try_from(digits).unwrap_or(0)));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn prices_keep_six_digits() {
        let numbers = [0.0, 100.0, 187.654_321, 0.001_234_567, 65_432.1, 1e12];
        assert_eq!(numbers.map(short), ["0", "100", "187.654", "0.00123457", "65432.1", "1.000e12"]);
    }
}
