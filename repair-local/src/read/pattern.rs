//! Patterns of times in which each part has its place, such as `%Y-%m-%d %H:%M:%S`, read without interpreting the pattern each time.

use repair_core::lake::partition::SECOND_US;

use super::time::{DAY_S, Stamp, day_of, is_time_of_day};

/// The last year that is read here; near the end of the calendar there may be no instant for a time.
const LAST_YEAR: i64 = 9_000;

/// What stands at a place of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// A pattern of which each part has its place.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    length: usize,
    /// The characters between the parts, and their places.
    others: Vec<(usize, u8)>,
    year: usize,
    month: usize,
    day: usize,
    hour: Option<usize>,
    minute: Option<usize>,
    second: Option<usize>,
    /// The last date, and its start.
    date: (i64, i64),
}

impl Fixed {
    /// `None` if the pattern has parts of other lengths, names, zones, or a part twice.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let pattern = pattern.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S").replace("%R", "%H:%M");
        let (mut length, mut others) = (0, Vec::new());
        let mut parts: Vec<(Part, usize)> = Vec::new();
        let mut bytes = pattern.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                if !byte.is_ascii_graphic() && byte != b' ' {
                    return None;
                }
                others.push((length, byte));
                length += 1;
                continue;
            }
            let (part, digits) = match bytes.next()? {
                b'Y' => (Part::Year, 4),
                b'm' => (Part::Month, 2),
                b'd' => (Part::Day, 2),
                b'H' => (Part::Hour, 2),
                b'M' => (Part::Minute, 2),
                b'S' => (Part::Second, 2),
                _ => return None,
            };
            if parts.iter().any(|(known, _)| *known == part) {
                return None;
            }
            parts.push((part, length));
            length += digits;
        }
        let place = |part: Part| parts.iter().find(|(known, _)| *known == part).map(|(_, at)| *at);
        let (hour, minute, second) = (place(Part::Hour), place(Part::Minute), place(Part::Second));
        if (minute.is_some() && hour.is_none()) || (second.is_some() && minute.is_none()) {
            return None;
        }
        let (year, month, day) = (place(Part::Year)?, place(Part::Month)?, place(Part::Day)?);
        Some(Self { length, others, year, month, day, hour, minute, second, date: (-1, 0) })
    }

    /// Reads a time; `None` if it is written in another way, which the pattern may still allow.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8]) -> Option<Stamp> {
        if text.len() != self.length || self.others.iter().any(|&(at, byte)| text[at] != byte) {
            return None;
        }
        let (century, year) = (two(text, self.year)?, two(text, self.year + 2)?);
        let (month, day) = (two(text, self.month)?, two(text, self.day)?);
        let date = ((century * 100 + year) * 100 + month) * 100 + day;
        if self.date.0 != date {
            let year = century * 100 + year;
            self.date = (date, day_of(year, month, day).filter(|_| year <= LAST_YEAR)? * i64::from(DAY_S) * SECOND_US);
        }
        let Some(hour) = self.hour else { return Some(Stamp::Date(self.date.1)) };
        let part = |at: Option<usize>| at.map_or(Some(0), |at| two(text, at));
        let (hour, minute, second) = (two(text, hour)?, part(self.minute)?, part(self.second)?);
        if !is_time_of_day(hour, minute, second) {
            return None;
        }
        Some(Stamp::Local(self.date.1 + (hour * 3_600 + minute * 60 + second) * SECOND_US))
    }
}

/// A number of two digits.
#[inline]
pub(super) fn two(text: &[u8], at: usize) -> Option<i64> {
    let [tens, ones] = *text.get(at..)?.first_chunk::<2>()?;
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}
