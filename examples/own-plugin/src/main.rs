//! A workflow written in Rust, with a detector of its own. It runs on a folder that is made for it.
#![expect(clippy::print_stdout, reason = "it is a program that prints")]

mod spikes;

use std::path::Path;

use repair::core::model::{Cadence, Format, Table};
use repair::core::workflow::builder::Built;
use repair::core::workflow::{Step, Strategy};
use repair::{Error, Interval, Repair, Result, Workflow};
use serde_json::json;

use crate::spikes::Spikes;

fn readings() -> Table {
    Table::new("readings", Format::Csv, "ts").with_key(["sensor"]).with_cadence(Cadence::HOUR)
}

/// Finds spikes, replaces each by a straight line between its neighbours, and looks again.
fn workflow() -> Result<Built> {
    let spikes = Spikes {
        table: "readings".to_owned(),
        sensors: vec!["cellar".to_owned(), "roof".to_owned()],
        interval: Interval::parse("2024-03-04", "2024-03-05")?,
        column: "value".to_owned(),
        factor: 20.0,
    };
    let line = Strategy::builder("interpolate").name("line").with(json!({ "max_gap": "3h" }));
    let built = Workflow::state_machine("spikes")
        .about("Corrects readings that are far from what is usual")
        .table(readings())
        .step("look", Step::detect(spikes).next_when("$output.defective = 0", "done").next("correct"))
        .step("correct", Step::strategies([line]).of("look").next("check"))
        .step("check", Step::verify("look").next_when("$output.defective = 0", "done").next("give_up"))
        .step("done", Step::succeed())
        .step("give_up", Step::fail("some spikes could not be corrected"))
        .build(repair::registry())?;
    Ok(built)
}

/// Two days of two sensors. On the roof, the sun shone on the sensor for an hour, and the sensor was broken for another.
fn write_readings(lake: &Path) -> std::io::Result<()> {
    let value = |sensor: &str, hour: i32| match (sensor, hour) {
        ("roof", 13) => 85,
        ("roof", 30) => -999,
        ("roof", _) => 12 + (hour % 24 - 12).abs() / -2 + 6,
        _ => 9 + hour % 3,
    };
    let mut text = "sensor,ts,value\n".to_owned();
    for hour in 0..48 {
        for sensor in ["cellar", "roof"] {
            text.push_str(&format!("{sensor},2024-03-{:02}T{:02}:00:00Z,{}\n", 4 + hour / 24, hour % 24, value(sensor, hour)));
        }
    }
    std::fs::create_dir(lake.join("readings"))?;
    std::fs::write(lake.join("readings/two-days.csv"), text)
}

fn main() -> Result<()> {
    let unwritable = |error| Error::invalid("the folder of the example cannot be written").because(error);
    let folder = tempfile::tempdir().map_err(unwritable)?;
    write_readings(folder.path()).map_err(unwritable)?;
    let Built { workflow, registry } = workflow()?;
    println!("The workflow, as the journal keeps it:\n\n{}", workflow.text);
    repair::block_on(async {
        let repair = Repair::of(workflow).registry(registry).lake(folder.path()).connect().await?;
        let report = repair.run().id("first").await?;
        println!("The run: {}", report.outcome.map_or("not ended", |outcome| outcome.as_str()));
        for (step, counted) in [("look", "defective"), ("correct", "repaired"), ("check", "defective")] {
            if let Some(done) = report.step(step) {
                println!("  {step}: {} {counted}", done.output[counted]);
            }
        }
        for at in ["2024-03-04T13:00:00Z", "2024-03-05T06:00:00Z"] {
            let at = at.parse().map_err(|error| Error::invalid("not an instant").because(error))?;
            let story = repair.why("readings", at).key("roof").await?;
            if let (Some(raw), Some(repair)) = (story.raw.first(), story.repairs.first()) {
                println!("roof at {at}: {} instead of {}", repair.repair.row["value"], raw["value"]);
            }
        }
        Ok(())
    })
}
