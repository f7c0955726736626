//! Detectors on seeded data: false alarms and detections within bounds, and direct formulas.

use partita::pattern::anomaly::{
    Ewma, EwmaSpec, RobustZ, RobustZSpec, Seasonal, SeasonalSpec, Sides, Spot, SpotSpec, Verdict,
};
use proptest::prelude::*;

use crate::stored;
use crate::streams::{Random, value};

/// Of normal values, every thousandth pushed out by `push`: the rate of false alarms among the
/// others, and the rate of detections.
fn rates(
    count: u32,
    mut normal: impl FnMut(u32) -> f64,
    push: f64,
    mut observe: impl FnMut(u32, f64) -> Option<Verdict>,
) -> (f64, f64) {
    let (mut judged, mut alarms, mut pushed, mut detected) = (0.0, 0.0, 0.0, 0.0);
    for at in 0..count {
        let is_pushed = at % 1_000 == 999;
        let value = normal(at) + if is_pushed { push } else { 0.0 };
        let Some(verdict) = observe(at, value) else {
            continue;
        };
        assert_eq!(
            verdict.is_anomaly,
            value < verdict.lower || value > verdict.upper
        );
        assert_eq!(verdict.is_anomaly, verdict.score > 1.0, "{verdict:?}");
        assert!((0.0..=1.0).contains(&verdict.confidence), "{verdict:?}");
        let hit = f64::from(u8::from(verdict.is_anomaly));
        if is_pushed {
            pushed += 1.0;
            detected += hit;
        } else {
            judged += 1.0;
            alarms += hit;
        }
    }
    (alarms / judged, detected / pushed)
}

#[test]
fn ewma_finds_eight_sigmas_and_alarms_as_often_as_a_normal_tail() {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let spec = EwmaSpec::new(0.02, 4.0, 200).expect("parameters");
        let mut ewma = Ewma::default();
        let observe = |_, value| {
            ewma = stored(&ewma);
            ewma.observe(&spec, value)
        };
        let (alarms, detections) = rates(100_000, |_| 50.0 + 2.0 * random.normal(), 16.0, observe);
        // 6·10⁻⁵ beyond four sigmas, more for a mean and variance of some hundred values.
        assert!(alarms < 5e-4, "{seed}: {alarms}");
        assert!(detections > 0.98, "{seed}: {detections}");
    }
}

#[test]
fn robust_z_stands_a_tenth_of_outliers() {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let spec = RobustZSpec::new(301, 5.0, 100).expect("parameters");
        let mut robust = RobustZ::default();
        let (mut alarms, mut detections, mut outliers) = (0, 0, 0);
        for step in 0..20_000 {
            let is_outlier = random.uniform() < 0.1;
            let value = if is_outlier { 30.0 } else { 0.0 } + random.normal();
            if step % 100 == 0 {
                robust = stored(&robust);
            }
            let found = robust.observe(&spec, value).is_some_and(|it| it.is_anomaly);
            if step >= 100 {
                outliers += i32::from(is_outlier);
                detections += i32::from(found && is_outlier);
                alarms += i32::from(found && !is_outlier);
            }
        }
        assert!(alarms < 20, "{seed}: {alarms} of 18,000");
        assert_eq!(detections, outliers, "{seed}");
    }
}

#[test]
fn seasonal_finds_what_is_usual_at_another_hour() {
    let hour = 3_600_000;
    let spec = SeasonalSpec::new(24 * hour, 24, 5.0, 50, 10).expect("parameters");
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let mut seasonal = Seasonal::default();
        let usual = |at: u32| 100.0 * (std::f64::consts::TAU * f64::from(at % 24) / 24.0).sin();
        let normal = |at: u32| usual(at) + 3.0 * random.normal();
        let observe = |at: u32, value| {
            if at.is_multiple_of(500) {
                seasonal = stored(&seasonal);
            }
            seasonal.observe(&spec, i64::from(at) * hour, value)
        };
        // 60 is well within what the day has, and 20 deviations from its hour.
        let (alarms, detections) = rates(60_000, normal, 60.0, observe);
        assert!(alarms < 2e-3, "{seed}: {alarms}");
        assert!(detections > 0.95, "{seed}: {detections}");
    }
}

#[test]
fn spot_alarms_as_often_as_its_risk_whatever_the_distribution() {
    let risk = 1e-3;
    for seed in 1..=3 {
        for name in ["normal", "exponential", "uniform", "heavy"] {
            let mut random = Random::new(seed);
            let normal = |_| match name {
                "normal" => random.normal(),
                "exponential" => -random.uniform().ln(),
                "uniform" => random.uniform(),
                _ => random.uniform().powf(-0.3),
            };
            let spec = SpotSpec::new(Sides::Upper, 2_000, 0.95, risk).expect("parameters");
            let mut spot = Spot::default();
            let observe = |at: u32, value| {
                if at.is_multiple_of(1_000) {
                    spot = stored(&spot);
                }
                spot.observe(&spec, value)
            };
            let (alarms, detections) = rates(100_000, normal, 60.0, observe);
            assert!(alarms < risk * 4.0, "{name} {seed}: {alarms}");
            // The shape of a uniform tail, −1, is not fitted: its edge is past the last value.
            let is_uniform = name == "uniform";
            assert!(alarms > risk / 4.0 || is_uniform, "{name} {seed}: {alarms}");
            assert!(detections > 0.98, "{name} {seed}: {detections}");
        }
    }
}

#[test]
fn dspot_finds_drops_from_a_drift_that_spot_takes_for_normal() {
    let drift = |at: u32| f64::from(at) * 1e-3;
    let alarms = |spec: SpotSpec| {
        let mut random = Random::new(7);
        let mut spot = Spot::default();
        let normal = |at: u32| drift(at) + random.normal();
        rates(20_000, normal, -12.0, |_, value| spot.observe(&spec, value))
    };
    let spec = SpotSpec::new(Sides::Both, 1_000, 0.98, 1e-3).expect("parameters");
    let (with_drift, detections) = alarms(spec.with_drift(50).expect("a depth"));
    assert!(with_drift < 8e-3, "{with_drift}");
    assert!(detections > 0.9, "{detections}");
    let (_, without) = alarms(spec);
    assert!(without < 0.7, "{without}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn robust_z_agrees_with_sorting(values in prop::collection::vec(value(), 1..60)) {
        let spec = RobustZSpec::new(9, 3.5, 3).expect("parameters");
        let mut robust = RobustZ::default();
        let mut window: Vec<f64> = Vec::new();
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let middle = sorted.len() / 2;
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
        };
        for value in values {
            let verdict = robust.observe(&spec, value);
            if !partita::pattern::aggregate::is_value(value) {
                assert_eq!(verdict, None);
                continue;
            }
            if window.len() >= 3 {
                let (verdict, middle) = (verdict.expect("it is warm"), median(&window));
                let distances: Vec<f64> = window.iter().map(|it| (it - middle).abs()).collect();
                assert_eq!(verdict.expected, middle);
                let deviation = median(&distances);
                if deviation > 0.0 {
                    let score = (0.6745 * (value - middle) / deviation / 3.5).abs().min(1e9);
                    assert!((verdict.score - score).abs() <= 1e-12 * score, "{verdict:?} {score}");
                }
            } else {
                assert_eq!(verdict, None);
            }
            window.push(value);
            if window.len() > 9 {
                window.remove(0);
            }
            robust = stored(&robust);
        }
    }
}
