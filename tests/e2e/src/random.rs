//! Randomness that can be repeated: `E2E_SEED` chooses, each test prints what it took.

pub use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The seed of this run: `E2E_SEED`, or the given one.
#[must_use]
pub fn seed(otherwise: u64) -> u64 {
    let given = std::env::var("E2E_SEED").ok();
    let seed = given.map_or(otherwise, |seed| seed.parse().expect("E2E_SEED is a number"));
    println!("seed {seed} (E2E_SEED)");
    seed
}

/// A generator for that seed.
#[must_use]
pub fn generator(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// How often to do something: as often as that variable says (for long runs by hand), or `otherwise`.
#[must_use]
pub fn times(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |times| times.parse().expect("a number of times"))
}
