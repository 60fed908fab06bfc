use std::f64::consts::PI;

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

const SETTINGS: Settings = Settings { ridge: 1.0, overlap: 0.8, step_s: HOUR };

fn hours(count: usize) -> Profile {
    Profile::new(HOUR, &[DAY, 7 * DAY], (0..count).map(|hour| i64::try_from(hour).unwrap() * HOUR).collect())
}

/// A day with its peak, and a slow wave: what one place uses.
fn demand(at: usize, level: f64) -> f64 {
    let day = (2.0 * PI * (number(at % 24) - 6.0) / 24.0).sin();
    level * (10.0 + 3.0 * day + 2.0 * (number(at) / 37.0).sin() + 0.3 * (number(at) / 5.3).cos())
}

fn worst(estimates: &[Estimate], truth: &[f64]) -> f64 {
    estimates.iter().zip(truth).map(|(estimate, truth)| ((estimate.value - truth) / truth).abs()).fold(0.0, f64::max)
}

#[test]
fn a_series_that_follows_others_is_estimated_from_them() {
    let truth: Vec<f64> = (0..1_000).map(|at| demand(at, 2.0)).collect();
    let other: Vec<f64> = (0..1_000).map(|at| demand(at, 5.0) + 7.0).collect();
    let hole = 400..600;
    let mut target = truth.clone();
    target[hole.clone()].fill(f64::NAN);
    let joint = estimate(&target, &hole, &[&other], &hours(1_000), SETTINGS).unwrap();
    assert!(worst(&joint, &truth[hole.clone()]) < 0.01);
    let alone = estimate(&target, &hole, &[], &hours(1_000), SETTINGS).unwrap();
    assert!(worst(&alone, &truth[hole.clone()]) > 0.05, "the slow wave shows only in the other series");
    assert!(alone[100].deviation.unwrap() > 5.0 * joint[100].deviation.unwrap(), "and that is known: {:?} {:?}", alone[100], joint[100]);
}

#[test]
fn a_short_hole_meets_its_edges() {
    // A level that nothing explains, from slot 300 on.
    let truth: Vec<f64> = (0..700).map(|at| demand(at, 1.0) + if at >= 300 { 6.0 } else { 0.0 }).collect();
    let hole = 500..506;
    let mut target = truth.clone();
    target[hole.clone()].fill(f64::NAN);
    let estimates = estimate(&target, &hole, &[], &hours(700), SETTINGS).unwrap();
    assert!(worst(&estimates, &truth[hole.clone()]) < 0.05, "{estimates:?}");
    assert!(estimates[0].deviation.unwrap() <= estimates[2].deviation.unwrap());
}

#[test]
fn an_absurd_value_is_carried_nowhere() {
    let truth: Vec<f64> = (0..1_000).map(|at| demand(at, 2.0)).collect();
    let hole = 480..504;
    let mut target = truth.clone();
    for at in [479, 312, 336, 648] {
        target[at] = 94_000.0;
    }
    leave_out_absurd(&mut target);
    assert_eq!(target.iter().filter(|value| value.is_nan()).count(), 4, "and no peak is");
    // One that is within what is usual, but does not fit.
    target[330] = 8.0;
    target[hole.clone()].fill(f64::NAN);
    let estimates = estimate(&target, &hole, &[], &hours(1_000), SETTINGS).unwrap();
    assert!(worst(&estimates, &truth[hole]) < 0.1, "{estimates:?}");
}

#[test]
fn what_is_not_there_is_not_used() {
    let target: Vec<f64> = (0..400).map(|at| if (200..240).contains(&at) { f64::NAN } else { demand(at, 1.0) }).collect();
    let hole = 200..240;
    let alone = estimate(&target, &hole, &[], &hours(400), SETTINGS).unwrap();
    let (gone, seldom, constant): (Vec<f64>, Vec<f64>, Vec<f64>) = (
        target.iter().map(|value| value * 3.0).collect(),
        (0..400).map(|at| if at > 150 { demand(at, 3.0) } else { f64::NAN }).collect(),
        vec![4.0; 400],
    );
    for other in [&gone, &seldom, &constant] {
        let with = estimate(&target, &hole, &[other], &hours(400), SETTINGS).unwrap();
        assert_eq!(with, alone);
    }
}

#[test]
fn too_little_is_not_enough() {
    let mut target = vec![f64::NAN; 100];
    assert!(estimate(&target, &(10..20), &[], &hours(100), SETTINGS).is_none());
    target[..8].fill(3.0);
    let constant = estimate(&target, &(10..20), &[], &hours(100), SETTINGS).unwrap();
    assert!(constant.iter().all(|estimate| *estimate == Estimate { value: 3.0, deviation: Some(0.0) }));
    target[1] = f64::MAX;
    target[2] = f64::MIN;
    assert!(estimate(&target, &(10..20), &[], &hours(100), SETTINGS).is_none(), "too large to compute with");
}

proptest! {
    #[test]
    fn estimates_are_finite_the_same_each_time_and_near_what_is_known(
        values in prop::collection::vec(prop_oneof![8 => 0.0f64..1_000.0, 1 => Just(f64::NAN), 1 => Just(0.0)], 60..200),
        first in 0usize..40,
        length in 1usize..20,
    ) {
        let mut target = values.clone();
        let hole = first..first + length;
        target[hole.clone()].fill(f64::NAN);
        let other: Vec<f64> = values.iter().rev().copied().collect();
        let profile = hours(target.len());
        let once = estimate(&target, &hole, &[&other], &profile, SETTINGS);
        prop_assert_eq!(&once, &estimate(&target, &hole, &[&other], &profile, SETTINGS));
        let Some(estimates) = once else { return Ok(()) };
        prop_assert_eq!(estimates.len(), length);
        prop_assert!(estimates.iter().all(|estimate| (0.0..=1_500.0).contains(&estimate.value) && estimate.deviation.unwrap() >= 0.0));
    }
}
