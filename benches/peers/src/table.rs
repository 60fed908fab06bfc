//! The figures as a table: the minimum and the maximum over all rounds.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Default)]
struct Cell {
    rates: Vec<f64>,
    refused: usize,
}

/// A table whose rows are in the order in which they were added.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<String>,
    cells: BTreeMap<(String, &'static str), Cell>,
    /// The highest rate that the disk allowed.
    floor: f64,
}

impl Table {
    pub(crate) fn add(&mut self, row: &str, column: &'static str, rate: f64) {
        self.cell(row, column).rates.push(rate);
    }

    pub(crate) fn add_floor(&mut self, row: &str, rate: f64) {
        self.floor = self.floor.max(rate);
        self.add(row, "sequence", rate);
    }

    pub(crate) fn refuse(&mut self, row: &str, column: &'static str) {
        self.cell(row, column).refused += 1;
    }

    fn cell(&mut self, row: &str, column: &'static str) -> &mut Cell {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.cells.entry((row.to_owned(), column)).or_default()
    }
}

impl Cell {
    fn write(&self, floor: f64, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rates.iter().copied().fold(0.0, f64::max);
        if !self.rates.is_empty() {
            write!(out, " {least:.0}–{most:.0} | {:.3} |", most / floor)?;
        } else if self.refused == 0 {
            write!(out, " | |")?;
        } else {
            write!(out, " not done | |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "| | steps/s | of the floor | fan-out/s | of the floor |\n| --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            write!(out, "| {row} |")?;
            for column in ["sequence", "fan-out"] {
                match self.cells.get(&(row.clone(), column)) {
                    Some(cell) => cell.write(self.floor, out)?,
                    None => write!(out, " | |")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
