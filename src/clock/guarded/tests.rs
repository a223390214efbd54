use super::*;
use proptest::prelude::*;

const START_MS: i64 = 1_795_172_400_000;

/// Both clocks, and the guard over them.
struct Clocks {
    begun: Instant,
    passed_ms: i64,
    step_ms: i64,
    guarded: Guarded,
}

impl Clocks {
    fn new() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            passed_ms: 0,
            step_ms: 0,
            guarded: Guarded::new(Timestamp::from_unix_ms(START_MS), begun),
        }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(self.passed_ms.unsigned_abs())
    }

    /// Some time later, by how much the time that is told is ahead of the steady clock.
    fn read(&mut self, passed_ms: i64) -> i64 {
        self.passed_ms += passed_ms;
        let wall = Timestamp::from_unix_ms(START_MS + self.passed_ms + self.step_ms);
        let told = self.guarded.read(wall, self.now());
        told.unix_ms - START_MS - self.passed_ms
    }
}

#[test]
fn a_step_is_believed_when_it_has_lasted() {
    for step_ms in [2 * 86_400_000, -3_600_000, 2_001, -2_001] {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.read(20), 0);
        clocks.step_ms = step_ms;
        for _ in 0..60 {
            assert_eq!(clocks.read(1_000), 0);
            assert!(!clocks.guarded.is_sure(clocks.now()));
            assert_eq!(clocks.guarded.ahead_ms(), step_ms);
        }
        assert_eq!(clocks.read(1_000), step_ms);
        assert_eq!(clocks.guarded.ahead_ms(), 0);
        assert!(
            !clocks.guarded.is_sure(clocks.now()),
            "others may not know yet"
        );
        assert_eq!(clocks.read(2_000), step_ms);
        assert!(clocks.guarded.is_sure(clocks.now()));
    }
}

#[test]
fn a_step_that_is_taken_back_was_none() {
    let mut clocks = Clocks::new();
    for _ in 0..100 {
        clocks.step_ms = 2 * 86_400_000;
        assert_eq!(clocks.read(30_000), 0);
        assert_eq!(clocks.read(29_000), 0);
        clocks.step_ms = 0;
        assert_eq!(clocks.read(20), 0);
        assert!(clocks.guarded.is_sure(clocks.now()));
    }
}

#[test]
fn a_clock_that_goes_a_little_wrong_is_followed_and_never_goes_back() {
    let mut clocks = Clocks::new();
    clocks.step_ms = 1_500;
    assert_eq!(clocks.read(20), 1_500);
    clocks.step_ms = 0;
    assert_eq!(clocks.read(20), 1_480, "it stands");
    assert_eq!(clocks.read(1_480), 0);
    assert!(clocks.guarded.is_sure(clocks.now()));
}

proptest! {
    /// Steps that come and go: none that did not last moves the time, and one that lasts always does.
    #[test]
    fn the_time_follows_what_lasts_and_nothing_else(
        readings in prop::collection::vec((1i64..20_000, prop::option::weighted(0.2, -200_000_000i64..200_000_000)), 1..200),
    ) {
        let mut clocks = Clocks::new();
        let mut believed = 0;
        let mut last = START_MS;
        // Since when the wall clock shows what it does, by readings.
        let mut shown_since = None;
        for (passed_ms, step) in readings {
            let before = clocks.step_ms;
            clocks.step_ms = step.unwrap_or(before);
            let is_new = clocks.step_ms != before;
            let ahead = clocks.read(passed_ms);
            let told = START_MS + clocks.passed_ms + ahead;
            let since = *shown_since.get_or_insert(clocks.passed_ms);
            let since = if is_new { clocks.passed_ms } else { since };
            shown_since = Some(since);
            let has_lasted = clocks.passed_ms - since >= LASTING.as_millis() as i64;
            let is_small = (clocks.step_ms - believed).abs() <= STEP_MS;
            if has_lasted || is_small {
                believed = clocks.step_ms;
                prop_assert!((ahead - believed).abs() <= STEP_MS, "{ahead} {believed}");
            } else {
                prop_assert!((ahead - believed).abs() <= STEP_MS, "{ahead} {believed}");
                prop_assert!(told >= last);
            }
            last = told;
        }
    }
}
