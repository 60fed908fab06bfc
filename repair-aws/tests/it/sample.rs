//! What is copied of a table in S3 for those who guess how to describe it, and what that takes.

use std::path::Path;

use crate::common::*;
use repair_aws::sample::{Bounds, Copied, Named, copy};
use repair_core::{ErrorKind, Result};

const BOUNDS: Bounds = Bounds { listed: 1_500, read: 3, bytes: 3_000 };

fn named(name: &str) -> Named {
    match name.rsplit_once('.') {
        Some((_, "csv")) => Named::Lines,
        Some((_, "parquet")) => Named::Whole,
        _ => Named::Other,
    }
}

async fn copied(world: &World, place: &str, into: &Path) -> Result<Copied> {
    copy(&world.connection, place, into, BOUNDS, named).await
}

/// A hundred lines of ten bytes each.
fn lines() -> String {
    (0..100).map(|line| format!("line-{line:04}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_objects_are_copied_within_bounds_and_all_have_a_name() {
    let world = World::new().await;
    for day in 1..=9 {
        world.put(&format!("lake/t/date=2024-03-0{day}/a.csv"), lines());
    }
    world.put("lake/t/", "");
    world.put("lake/t/readme.md", "not read");
    world.put("lake/t/_hidden/a.csv", "not read");
    world.put("lake/t/date=2024-03-05/empty.csv", "");
    world.put("lake/tt/a.csv", "of another table");
    let folder = tempfile::tempdir().unwrap();
    let all = copied(&world, "s3://bucket/lake/t/", folder.path()).await.unwrap();
    assert_eq!((all.lake.as_str(), all.name.as_str()), ("s3://bucket/lake", "t"));
    // Each of the three may take a third of the bound, which is less than a line more than it has.
    assert_eq!((all.listed, all.read, all.are_more, all.is_whole), (12, 3, false, false), "{all:?}");
    assert_eq!(all.bytes, 3_000);
    for (day, is_read) in [(1, true), (2, false), (5, true), (8, false), (9, true)] {
        let text = std::fs::read_to_string(all.folder.join(format!("date=2024-03-0{day}/a.csv"))).unwrap();
        assert_eq!(text, if is_read { lines() } else { String::new() }, "{day}");
    }
    assert!(all.folder.join("readme.md").exists() && !folder.path().join("tt").exists());
    let of_one = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();

    // Of a large text, whole lines of its beginning and its end; of anything else, all or nothing.
    world.put("lake/long/a.csv", lines().repeat(10));
    let long = copied(&world, "s3://bucket/lake/long", folder.path()).await.unwrap();
    assert!(long.bytes <= BOUNDS.bytes && !long.is_whole && long.read == 1, "{long:?}");
    let text = of_one("long/a.csv");
    assert!(text.starts_with("line-0000\n") && text.ends_with("line-0099\n") && text.lines().all(|line| line.len() == 9), "{text}");
    world.put("lake/large/a.parquet", vec![b'x'; 5_000]);
    let refused = copied(&world, "s3://bucket/lake/large", folder.path()).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("more than 3,000 bytes"), "{refused:?}");
    world.put("lake/large/b.parquet", vec![b'x'; 2_000]);
    let small = copied(&world, "s3://bucket/lake/large", folder.path()).await.unwrap();
    assert_eq!((small.read, small.bytes, small.is_whole), (1, 2_000, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_is_no_table_is_refused() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    world.put("lake/up/../../a.csv", "outside");
    for (place, kind, words) in [
        ("s3://bucket", ErrorKind::Invalid, "is a whole bucket"),
        ("s3://bucket/", ErrorKind::Invalid, "is a whole bucket"),
        ("s3://bucket/lake/none", ErrorKind::NotFound, "there is no object below s3://bucket/lake/none/"),
        ("s3://nobody/lake/none", ErrorKind::NotFound, "nobody"),
        ("s3://bucket/lake/up", ErrorKind::Invalid, "has a key that no file of this machine can have"),
    ] {
        let refused = copied(&world, place, folder.path()).await.unwrap_err();
        assert!(refused.kind() == kind && refused.full().contains(words), "{place}: {refused:?}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "something was written");

    // More objects than are listed: those beyond are not known, and that is said.
    for number in 0..1_600 {
        world.put(&format!("lake/many/{number:04}.csv"), "x\n");
    }
    let many = copied(&world, "s3://bucket/lake/many", folder.path()).await.unwrap();
    assert_eq!((many.listed, many.are_more, many.is_whole, many.read), (1_500, true, false, 3), "{many:?}");
}
