use super::*;
use repair_core::lake::overlay::aside::Asides;
use repair_core::model::Table;

use proptest::prelude::*;

const SLOTS: i64 = 48;

/// A look: its class, from where to where, whether only at what it lists as examined; and of each slot, what it saw.
#[derive(Debug, Clone)]
struct Made {
    rows: bool,
    from: i64,
    to: i64,
    again: bool,
    saw: Vec<u8>,
}

impl Made {
    fn saw(&self, slot: i64) -> u8 {
        usize::try_from(slot).ok().and_then(|slot| self.saw.get(slot)).copied().unwrap_or(5)
    }
}

fn looks() -> impl Strategy<Value = Vec<Made>> {
    let look = (prop::bool::weighted(0.3), 0..SLOTS, 1..SLOTS, any::<bool>(), prop::collection::vec(0u8..6, 48));
    let made = look.prop_map(|(rows, from, length, again, saw)| Made { rows, from, to: (from + length).min(SLOTS), again, saw });
    prop::collection::vec(made, 0..6)
}

fn list(of: impl Fn(i64) -> bool) -> GapList {
    GapList::of_slots((0..SLOTS).filter(|slot| of(*slot)).map(|slot| (Key::from("A"), slot)))
}

proptest! {
    /// Slot by slot: the newest look of each class counts, and what there is no row of is not also suspect.
    #[test]
    fn days_are_what_the_newest_look_saw_of_each_slot(made in looks()) {
        let class = |look: &Made| {
            if look.rows { Class::of(DefectKind::Invalid, "w", "odd") } else { Class::of(DefectKind::Missing, "w", "look") }
        };
        // 5 is a slot that the look expects nothing in, or that it has not examined.
        let is_examined = |look: &Made, slot: i64| look.from <= slot && slot < look.to && !(look.again && look.saw(slot) == 5);
        let is_expected = |look: &Made, slot: i64| is_examined(look, slot) && look.saw(slot) != 5;
        let parts: Vec<_> = made.iter().map(|look| {
            let of = |state: u8| list(|slot| is_expected(look, slot) && look.saw(slot) == state);
            let examined = if look.again { list(|slot| is_examined(look, slot)) } else { GapList::default() };
            let (repaired, absent) = if look.rows { (GapList::default(), GapList::default()) } else { (of(2), of(3)) };
            let replaced = if look.rows { of(2) } else { GapList::default() };
            (class(look), of(1), SeenSlots { repaired, absent, replaced, aside: of(4), examined })
        }).collect();
        let expecting: Vec<_> = made.iter().map(|look| move |_: &Key, within: SlotRange| {
            let mut set = SlotSet::new(Cadence::HOUR, within);
            (within.first..within.end).filter(|slot| look.saw(*slot) != 5).for_each(|slot| _ = set.insert(slot));
            Some(set)
        }).collect();
        let seen: Vec<Seen<'_>> = made.iter().zip(&parts).zip(&expecting).enumerate().map(|(at, ((look, (class, gaps, others)), expected))| Seen {
            look: at, class, slots: SlotRange::new(look.from, look.to), again: look.again, expected, gaps, others,
        }).collect();
        let date = |day: i8| Date::constant(2024, 3, 4 + day);
        let days = [(date(0), SlotRange::new(0, 24)), (date(1), SlotRange::new(24, 48))];
        let asides = Asides::of(&Table::implicit("t", "ts"), &[]);
        let grid = repair_core::model::SlotGrid::new(Cadence::HOUR, repair_core::model::TimeMark::Start);
        let cells = days_of(&Key::from("A"), Cadence::HOUR, &days, &seen, &asides.on(grid));
        for (date, range) in days {
            let mut states = States::default();
            let mut looked = false;
            for slot in range.first..range.end {
                let newest = |rows: bool| made.iter().rev().find(|look| look.rows == rows && is_examined(look, slot));
                let (presence, rows) = (newest(false), newest(true));
                looked |= presence.is_some() || rows.is_some();
                let of_presence = presence.filter(|look| is_expected(look, slot)).map(|look| look.saw(slot));
                let of_rows = rows.filter(|look| is_expected(look, slot)).map(|look| look.saw(slot));
                let (expected, of_rows) = match (presence, of_presence) {
                    (Some(_), of_presence) => (of_presence.is_some(), of_rows.filter(|_| of_presence.is_some())),
                    (None, _) => (of_rows.is_some(), of_rows),
                };
                if !expected {
                    continue;
                }
                states.expected += 1;
                let count = match (of_presence, of_rows) {
                    (Some(1 | 4), _) => &mut states.missing,
                    (Some(3), _) => &mut states.absent,
                    (_, Some(1 | 4)) => &mut states.suspect,
                    (Some(2), _) | (_, Some(2)) => &mut states.repaired,
                    (None, _) => &mut states.unexamined,
                    _ => &mut states.complete,
                };
                *count += 1;
            }
            let cell = cells.iter().find(|cell| cell.date == date);
            prop_assert_eq!(cell.is_some(), looked);
            prop_assert_eq!(cell.map_or(States::default(), |cell| cell.states), states);
            prop_assert!(states.add_up());
        }
    }
}
