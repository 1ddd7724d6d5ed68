//! Which token comes next.

use super::Error;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it. 0 takes the most likely token always.
    pub temperature: f64,
    /// Only the most likely tokens are drawn from: as few as have this much of the probability together. 1 is all.
    pub top_p: f64,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// Chooses tokens, deterministically: the same logits and seed give the same tokens on every machine and with any number
/// of threads.
///
/// The most likely token is the first of the largest logits. Drawing computes in `f64`: probabilities are
/// `exp((logit - largest) / temperature)`, tokens are ordered by falling logit, then by id, cut where `top_p` of the sum
/// is reached, and the first is taken at which the running sum exceeds a uniform number times the sum of what is left.
/// That number is the upper 53 bits of SplitMix64 over 2⁵³.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    /// Reused from token to token.
    candidates: Vec<(f64, u32)>,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// [`Error::Argument`] for a temperature below 0 or a `top_p` outside 0 to 1.
    pub fn new(sampling: Sampling) -> Result<Self, Error> {
        let Sampling { temperature, top_p, seed } = sampling;
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(Error::Argument(format!("temperature {temperature} is not a number from 0 up")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Argument(format!("top-p {top_p} is not above 0 and at most 1")));
        }
        Ok(Sampler { sampling, state: seed, candidates: Vec::new() })
    }

    /// The token that follows.
    ///
    /// # Errors
    /// [`Error::Logits`] if there are none, or if any is NaN or infinitely large.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let mut best = 0;
        for (i, &x) in logits.iter().enumerate() {
            if x.is_nan() || x == f32::INFINITY {
                return Err(Error::Logits(format!("the logit of token {i} is {x}")));
            }
            if x > logits.get(best).copied().unwrap_or(x) {
                best = i;
            }
        }
        let largest = logits.get(best).copied().filter(|x| x.is_finite());
        let largest = f64::from(largest.ok_or_else(|| Error::Logits("no logit is a finite number".to_owned()))?);
        if self.sampling.temperature == 0.0 {
            return u32::try_from(best).map_err(|_| Error::Logits(format!("there are {} logits", logits.len())));
        }
        self.candidates.clear();
        let weigh = |x: f32| ((f64::from(x) - largest) / self.sampling.temperature).exp();
        self.candidates.extend((0..).zip(logits).map(|(id, &x)| (weigh(x), id)).filter(|c| c.0 > 0.0));
        let total: f64 = self.candidates.iter().map(|c| c.0).sum();
        let mut kept = total;
        if self.sampling.top_p < 1.0 {
            // A token with less than an equal share of what is cut off cannot be among those kept; most have, and need no sorting.
            let least = (1.0 - self.sampling.top_p) * total / self.candidates.len() as f64;
            self.candidates.retain(|c| c.0 >= least);
            self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut sum = 0.0;
            let enough = self.candidates.iter().position(|c| {
                sum += c.0;
                sum >= self.sampling.top_p * total
            });
            if let Some(last) = enough {
                self.candidates.truncate(last + 1);
            }
            kept = sum;
        }
        let goal = self.uniform() * kept;
        let mut sum = 0.0;
        let drawn = self.candidates.iter().find(|c| {
            sum += c.0;
            sum > goal
        });
        let drawn = drawn.or(self.candidates.last());
        drawn.map(|c| c.1).ok_or_else(|| Error::Logits("no token is possible".to_owned()))
    }

    /// From 0 up to 1, without 1.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: Sampling, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling).unwrap();
        (0..n).map(|_| sampler.next(logits).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(draws(Sampling::default(), &[0.5, 2.0, f32::NEG_INFINITY, 2.0], 2), [1, 1]);
        assert_eq!(draws(Sampling::default(), &[f32::MIN], 1), [0]);
    }

    #[test]
    fn draws_have_the_probabilities_and_repeat_by_seed() {
        let logits = [3f32.ln(), f32::NEG_INFINITY, 6f32.ln(), 1f32.ln()];
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 7 };
        let drawn = draws(sampling, &logits, 10_000);
        assert_eq!(drawn, draws(sampling, &logits, 10_000));
        assert_ne!(drawn, draws(Sampling { seed: 8, ..sampling }, &logits, 10_000));
        let share = |id| drawn.iter().filter(|&&d| d == id).count() as f64 / 10_000.0;
        // Four standard deviations of a share are 0.02.
        for (id, expected) in [(0, 0.3), (1, 0.0), (2, 0.6), (3, 0.1)] {
            assert!((share(id) - expected).abs() < 0.02, "{id}: {}", share(id));
        }
        // Halving the temperature squares the ratios: 9 : 36 : 1.
        let cold = draws(Sampling { temperature: 0.5, ..sampling }, &logits, 10_000);
        let share = cold.iter().filter(|&&d| d == 2).count() as f64 / 10_000.0;
        assert!((share - 36.0 / 46.0).abs() < 0.02, "{share}");
    }

    #[test]
    fn the_unlikely_are_cut() {
        let logits = [3f32.ln(), 6f32.ln(), 1f32.ln(), -9.0];
        let cut = |top_p| {
            let mut seen = draws(Sampling { temperature: 1.0, top_p, seed: 1 }, &logits, 500);
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(cut(0.5), [1]);
        assert_eq!(cut(0.7), [0, 1]);
        assert_eq!(cut(0.95), [0, 1, 2]);
        // Equal ones: the lower ids stay.
        let flat = draws(Sampling { temperature: 1.0, top_p: 0.5, seed: 1 }, &[0.0; 8], 500);
        assert_eq!(flat.iter().max(), Some(&3));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        for (logits, expected) in
            [(&[0.0, f32::NAN][..], "the logit of token 1 is NaN"), (&[], "no logit"), (&[f32::INFINITY], "token 0 is inf")]
        {
            let text = sampler.next(logits).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        for bad in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, 1.5)] {
            assert!(Sampler::new(Sampling { temperature: bad.0, top_p: bad.1, seed: 0 }).is_err(), "{bad:?}");
        }
    }
}
