//! A process that dies at any write while it repairs from a program or an API: the run goes on in the next process, asks for nothing again that it has, and
//! leaves each repair once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use repair_core::engine::{Engine, EngineOptions, Outcome, RunReport, StartRequest, load_whole};
use repair_core::lake::{Overlay, StageScope};
use repair_core::testing::{CrashingJournal, CrashingLake, MemoryJournal, Moment, Schedule, VirtualClock};
use repair_core::workflow::Workflow;

use crate::world::{MISSING, World, options, registry};

/// A lake in a folder, and a journal, which outlive processes.
struct Swept {
    world: World,
    text: String,
    journal: MemoryJournal,
}

impl Swept {
    fn new(world: World, text: String) -> Self {
        Self { world, text, journal: MemoryJournal::default() }
    }

    fn workflow(&self) -> Workflow {
        Workflow::parse("workflow.yaml", &self.text, &registry(&options())).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// Drives the run in one process; `None` if it crashed.
    async fn live(&self, schedule: &Schedule) -> Option<RunReport> {
        let lake = CrashingLake::new(Arc::new(self.world.lake()), schedule.clone());
        let journal = CrashingJournal::new(Arc::new(self.journal.clone()), schedule.clone());
        let mut engine = Engine::new(Arc::new(registry(&options())), Arc::new(lake), Arc::new(journal));
        engine.clock = Arc::new(VirtualClock::starting_at("2024-03-10T00:00:00Z".parse().unwrap()));
        engine.options = EngineOptions::default().with_keep_every(3);
        match Box::pin(engine.start(&self.workflow(), StartRequest::new("one"))).await {
            Ok(report) => Some(report),
            Err(error) => {
                assert!(schedule.crashed(), "{}", error.full());
                self.journal.all_drivers_died();
                None
            }
        }
    }

    /// How many units are on durable record or staged, so that they are paid for.
    async fn has(&self) -> usize {
        let Ok(state) = load_whole(&self.journal, "one").await else { return 0 };
        let Some(visit) = state.steps.get("fill").map(|fill| fill.visits) else { return 0 };
        let table = self.workflow().tables["readings"].clone();
        let scope = StageScope { run: "one", step: "fill", visit, table: &table };
        let staged = self.world.lake().staged(&scope).await.unwrap().len();
        let published = state.steps["fill"].units.as_ref().map_or(0, |units| usize::try_from(units.published()).unwrap());
        staged.max(published)
    }
}

/// A count, once it no longer changes: what a process had begun when it died may still be on its way.
async fn settled(count: impl Fn() -> usize) -> usize {
    loop {
        let before = count();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if count() == before {
            return before;
        }
    }
}

/// Tries a crash before and after each write. `asked` counts what was asked so far, of which a run without a crash needs `units`.
async fn sweep(make: impl AsyncFn() -> Swept, asked: impl Fn(&World) -> usize, units: usize) {
    let swept = make().await;
    let schedule = Schedule::never();
    assert_eq!(swept.live(&schedule).await.unwrap().outcome, Some(Outcome::Succeeded));
    assert_eq!((asked(&swept.world), swept.world.repaired().await), (units, MISSING.len()));
    let writes = schedule.writes();
    assert!(writes > 10, "{writes}");
    let mut asked_again = 0;
    for write in 1..=writes {
        for moment in [Moment::Before, Moment::After] {
            let swept = make().await;
            let which = format!("write {write} {moment:?}");
            let report = match swept.live(&Schedule::crash_at(write, moment)).await {
                Some(report) => report,
                None => {
                    let (before, has) = (settled(|| asked(&swept.world)).await, swept.has().await);
                    let report = swept.live(&Schedule::never()).await.unwrap();
                    let after = asked(&swept.world) - before;
                    assert!(after <= units - has, "{which}: {after} of {units} were asked for again, although {has} were there");
                    asked_again += after;
                    report
                }
            };
            assert_eq!(report.outcome, Some(Outcome::Succeeded), "{which}: {:?}", report.problems);
            assert!((units..=2 * units).contains(&asked(&swept.world)), "{which}");
            assert_eq!(swept.world.repaired().await, MISSING.len(), "{which}");
        }
    }
    assert!(asked_again > 0, "no crash came before everything was asked for");
}

#[tokio::test]
async fn a_program_is_asked_for_nothing_that_is_there_whichever_write_a_process_dies_at() {
    let make = async || {
        let world = World::new();
        let program = format!("echo asked >> '{}/asked'\n{}", world.path().display(), crate::world::ARCHIVE);
        let text = world.filling(&program, ", rows_per_request: 5");
        Swept::new(world, text)
    };
    let asked = |world: &World| std::fs::read_to_string(world.path().join("asked")).map_or(0, |text| text.lines().count());
    sweep(make, asked, 2).await;
}

#[cfg(feature = "http")]
#[tokio::test]
async fn an_api_is_asked_for_nothing_that_is_there_whichever_write_a_process_dies_at() {
    use crate::http::{Server, rows_within};
    let server = Server::start(|seen, _| rows_within(seen)).await;
    let make = async || {
        let world = World::new();
        let workflow = world.filling("exit 1", "");
        let (from, to) = (workflow.find("sources:").unwrap(), workflow.find("start:").unwrap());
        let number = server.seen().len();
        std::fs::write(world.path().join("before"), number.to_string()).unwrap();
        let text = format!(
            "{}sources:\n  program: {{ source: http, with: {{ base_url: '{}', path: 'rows/{{key}}', query: {{ from: '{{from}}', to: '{{to}}' }}, rows_per_request: 5 }} }}\n{}",
            &workflow[..from],
            server.url,
            &workflow[to..],
        );
        Swept::new(world, text)
    };
    let asked = |world: &World| {
        let before: usize = std::fs::read_to_string(world.path().join("before")).unwrap().parse().unwrap();
        server.seen().len() - before
    };
    sweep(make, asked, 2).await;
}
