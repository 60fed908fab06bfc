//! Opens a workflow, plans it, runs the plan, prices the run, and undoes it.

use repair::Repair;

fn main() -> repair::Result<()> {
    repair::block_on(async {
        let repair = Repair::open("air-quality.yaml").param("day", "2024-03-04").connect().await?;

        let plan = repair.plan().await?;
        println!("{} slots are missing; calls to repair them: {} at most", plan.missing(), plan.total.high.calls);

        let run = repair.apply(&plan).await?;
        println!("{} of them are still missing after run {}", run.missing, run.run);

        let costs = repair.costs().runs([&run.run]).await?;
        println!("it cost {} USD", costs.total.usd.unwrap_or_default().normalize());

        let undone = repair.undo(&run.run).reason("only a trial").await?;
        println!("{} rows are hidden again; `redo` with {} shows them", undone.rows(), undone.id);
        Ok(())
    })
}
