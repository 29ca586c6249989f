//! The tokens that may still be chosen, with their logits. Two forms: *all*, a dense copy of the row (the penalties
//! want to find a token by its id), then *some*, a list. No form is ever sorted as a whole, and no step allocates
//! after the first token: a vocabulary of 128k must cost well under a millisecond.

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit, finite.
    pub logit: f32,
}

impl Candidate {
    /// Better first; equal logits by the lower id, so that every selection is deterministic.
    pub(crate) fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
        b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
    }
}

/// The tokens that may still be chosen. Logits that are not finite are never chosen.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Dense form: the row, with −∞ for what may not be chosen.
    row: Vec<f32>,
    /// List form, in no particular order.
    list: Vec<Candidate>,
    is_list: bool,
    /// Weights of a draw or of a share.
    weights: Vec<f32>,
    /// Candidates among which a cut falls.
    edge: Vec<Candidate>,
}

/// Bins of [`Candidates::keep_share`].
const N_BINS: usize = 256;

impl Candidates {
    /// Starts over with a row of logits. False if none of them is finite.
    pub fn load(&mut self, logits: &[f32]) -> bool {
        self.row.clear();
        self.row.extend(logits.iter().map(|&x| if x.is_finite() { x } else { f32::NEG_INFINITY }));
        self.list.clear();
        self.is_list = false;
        self.best_logit() > f32::NEG_INFINITY
    }

    /// Tokens left.
    pub fn len(&self) -> usize {
        if self.is_list { self.list.len() } else { self.row.iter().filter(|&&x| x > f32::NEG_INFINITY).count() }
    }

    /// Whether no token is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens left, in no particular (but deterministic) order.
    pub fn iter(&self) -> impl Iterator<Item = Candidate> + '_ {
        let row: &[f32] = if self.is_list { &[] } else { &self.row };
        let dense = row.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        let dense = dense.map(|(id, &logit)| Candidate { id: id as u32, logit });
        let list: &[Candidate] = if self.is_list { &self.list } else { &[] };
        dense.chain(list.iter().copied())
    }

    /// Changes the logit of one token if it is still there; a result that is not finite removes it.
    pub fn update(&mut self, id: u32, change: impl FnOnce(f32) -> f32) {
        let finite = |x: f32| if x.is_finite() { x } else { f32::NEG_INFINITY };
        if !self.is_list {
            if let Some(logit) = self.row.get_mut(id as usize).filter(|x| **x > f32::NEG_INFINITY) {
                *logit = finite(change(*logit));
            }
        } else if let Some(at) = self.list.iter().position(|c| c.id == id) {
            let logit = finite(change(self.list[at].logit));
            if logit > f32::NEG_INFINITY {
                self.list[at].logit = logit;
            } else {
                self.list.swap_remove(at);
            }
        }
    }

    /// Replaces every logit by its distance from the best one, divided by `temperature`, which must be over 0. The
    /// distances come first so that nothing overflows at tiny temperatures.
    pub fn soften(&mut self, temperature: f32) {
        let best = self.best_logit();
        let softened = |x: f32| if x > f32::NEG_INFINITY { ((x - best) / temperature).max(f32::MIN) } else { x };
        if self.is_list {
            self.list.iter_mut().for_each(|c| c.logit = softened(c.logit));
        } else {
            self.row.iter_mut().for_each(|x| *x = softened(*x));
        }
    }

    /// The best token: highest logit, lowest id among equals.
    pub fn best(&self) -> Option<Candidate> {
        if self.is_list {
            return self.list.iter().copied().min_by(Candidate::order);
        }
        let logit = self.best_logit();
        let id = self.row.iter().position(|&x| x == logit && x > f32::NEG_INFINITY)?;
        Some(Candidate { id: id as u32, logit })
    }

    /// Keeps the `k` best tokens (all, if there are fewer).
    pub fn keep_best(&mut self, k: usize) {
        if k == 0 {
            return;
        }
        if !self.is_list {
            self.gather_best(k);
        }
        if self.list.len() > k {
            self.list.select_nth_unstable_by(k - 1, Candidate::order);
            self.list.truncate(k);
        }
    }

    /// Keeps the tokens whose logit is at least `least`.
    pub fn keep_at_least(&mut self, least: f32) {
        if self.is_list {
            self.list.retain(|c| c.logit >= least);
            return;
        }
        let kept = self.row.iter().enumerate().filter(|(_, x)| **x >= least && **x > f32::NEG_INFINITY);
        self.list.extend(kept.map(|(id, &logit)| Candidate { id: id as u32, logit }));
        self.is_list = true;
    }

    /// Keeps the smallest set of best tokens whose probability (over the tokens left) reaches `share`; at least one.
    pub fn keep_share(&mut self, share: f32) {
        let best = self.best_logit();
        if self.is_list {
            let total: f64 = self.list.iter().map(|c| f64::from(exp(c.logit - best))).sum();
            let keep = count_of_share(&mut self.list, best, total * f64::from(share));
            self.list.truncate(keep);
        } else if best > f32::NEG_INFINITY {
            self.gather_share(best, f64::from(share));
        }
    }

    /// Draws a token in proportion to `exp(logit)`; `u` is uniform in `[0, 1)`. None if no token is left.
    pub fn draw(&mut self, u: f64) -> Option<u32> {
        let best = self.best()?;
        self.weights.clear();
        if self.is_list {
            self.weights.extend(self.list.iter().map(|c| exp(c.logit - best.logit)));
        } else {
            self.weights.extend(self.row.iter().map(|&x| exp(x - best.logit)));
        }
        let total: f64 = self.weights.iter().map(|&w| f64::from(w)).sum();
        let mut left = u * total;
        let mut chosen = None;
        for (i, &weight) in self.weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            // Rounding may leave a little at the end: then the last token with any weight is it.
            chosen = Some(i);
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
        let at = chosen?;
        if self.is_list { self.list.get(at).map(|c| c.id) } else { Some(at as u32) }
    }

    /// The highest logit; −∞ when there is none.
    fn best_logit(&self) -> f32 {
        if self.is_list {
            return self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        }
        // Eight independent maxima, so that the compiler can keep them in one register.
        let mut lanes = [f32::NEG_INFINITY; 8];
        let (chunks, rest) = self.row.as_chunks::<8>();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &x| best.max(x))
    }

    /// Dense to list: at least the `k` best tokens (or all), and seldom more than twice as many. One pass over the row
    /// with a threshold that rises whenever the list has filled up.
    fn gather_best(&mut self, k: usize) {
        self.list.clear();
        let room = k.saturating_mul(2).max(64);
        let mut threshold = f32::NEG_INFINITY;
        for (id, &logit) in self.row.iter().enumerate() {
            // Equal to the threshold and a later id than all k kept ones: never among the best.
            if logit > threshold {
                self.list.push(Candidate { id: id as u32, logit });
                if self.list.len() == room {
                    let (_, last, _) = self.list.select_nth_unstable_by(k - 1, Candidate::order);
                    threshold = last.logit;
                    self.list.truncate(k);
                }
            }
        }
        self.is_list = true;
    }

    /// Dense to list: the best tokens that reach `share`. The weights are summed by their distance from the best logit,
    /// which tells the bin where the cut falls; only that bin has to be ordered.
    fn gather_share(&mut self, best: f32, share: f64) {
        self.weights.clear();
        self.weights.extend(self.row.iter().map(|&x| exp(x - best)));
        let mut bins = [0f64; N_BINS];
        for (&x, &weight) in self.row.iter().zip(&self.weights) {
            bins[bin(x, best)] += f64::from(weight);
        }
        let wanted = bins.iter().sum::<f64>() * share;
        let (mut cut, mut have) = (0, 0.0);
        while cut + 1 < N_BINS && have + bins[cut] < wanted {
            have += bins[cut];
            cut += 1;
        }
        self.edge.clear();
        // Few pass this comparison as a rule; it is never true for −∞, and never false for a bin up to the cut's.
        let far = if cut + 1 < N_BINS { (cut + 1) as f32 } else { f32::INFINITY };
        for (id, &logit) in self.row.iter().enumerate().filter(|(_, x)| distance(**x, best) < far) {
            let (candidate, bin) = (Candidate { id: id as u32, logit }, bin(logit, best));
            if bin < cut {
                self.list.push(candidate);
            } else if bin == cut {
                self.edge.push(candidate);
            }
        }
        let keep = count_of_share(&mut self.edge, best, wanted - have);
        self.list.extend_from_slice(&self.edge[..keep]);
        self.is_list = true;
    }
}

/// Which bin of weights a logit falls into: eighths of its distance from the best one; everything further than 32 (less
/// than 1e-13 of the best one's weight) into the last. Adding 2²³ leaves the rounded number in the low bits, which is
/// cheaper than a conversion that has to care for all floats.
#[inline(always)]
fn bin(logit: f32, best: f32) -> usize {
    (distance(logit, best).min((N_BINS - 1) as f32) + 8_388_608.0).to_bits() as usize % N_BINS
}

/// How far a logit is from the best one, in bins.
#[inline(always)]
fn distance(logit: f32, best: f32) -> f32 {
    (best - logit) * 8.0
}

/// How many of the best tokens reach the weight `wanted` (at least one, if there is any), moving exactly those to the
/// front of the list: a quickselect by weight instead of a sort.
fn count_of_share(list: &mut [Candidate], best: f32, wanted: f64) -> usize {
    let (mut low, mut high) = (0, list.len());
    let mut have = 0.0;
    // Invariant: list[..low] are kept and weigh `have` < wanted; list[high..] go, unless rounding wants more.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        list[low..high].select_nth_unstable_by(middle - low - 1, Candidate::order);
        let upper: f64 = list[low..middle].iter().map(|c| f64::from(exp(c.logit - best))).sum();
        if have + upper >= wanted {
            high = middle;
        } else {
            have += upper;
            low = middle;
        }
    }
    high.max(1).min(list.len())
}

/// `e^x` for `x ≤ 0` to 2 units in the last place, 0 below −87: branch-free so that it vectorizes, and the same bits
/// on every platform, which the C library's does not promise. The classic reduction `x = n·ln 2 + r` with Cephes'
/// polynomial for `e^r`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 0.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_3e-1;
    let e = p * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x >= -87.0 { e * f32::from_bits(power) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(logits: &[f32]) -> Candidates {
        let mut candidates = Candidates::default();
        assert!(candidates.load(logits));
        candidates
    }

    fn ids(candidates: &Candidates) -> Vec<u32> {
        let mut ids: Vec<u32> = candidates.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    /// A long row without order, deterministic.
    fn noise(n: usize) -> Vec<f32> {
        let mut rng = super::super::rng::Xoshiro256::new(7);
        (0..n).map(|_| (rng.next_f64() * 8.0 - 4.0) as f32).collect()
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 2.5e-7 * expected, "{x}: {} {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn not_finite_is_never_chosen() {
        let mut some = Candidates::default();
        assert!(some.load(&[f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY, -1.0]));
        assert_eq!(ids(&some), [1, 4]);
        assert_eq!(some.best(), Some(Candidate { id: 1, logit: 1.0 }));
        assert!(!some.load(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]));
        assert!(!some.load(&[]));
        assert_eq!(some.draw(0.5), None);
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!(of(&[0.0, 3.0, 3.0]).best().map(|c| c.id), Some(1));
        let mut equal = of(&[1.0; 300]);
        equal.keep_best(5);
        assert_eq!(ids(&equal), [0, 1, 2, 3, 4]);
        assert_eq!(equal.best().map(|c| c.id), Some(0));
    }

    #[test]
    fn keep_best_agrees_with_a_sort() {
        let row = noise(5000);
        let mut order: Vec<u32> = (0..5000).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        for k in [1, 2, 40, 64, 1000, 4999, 5000, 9000] {
            let mut candidates = of(&row);
            candidates.keep_best(k);
            let mut expected = order[..k.min(5000)].to_vec();
            expected.sort_unstable();
            assert_eq!(ids(&candidates), expected, "{k}");
        }
    }

    #[test]
    fn keep_share_agrees_with_a_sort() {
        let flat = noise(5000);
        let peaked: Vec<f32> = flat.iter().map(|x| x * 4.0).collect();
        for row in [flat, peaked] {
            let mut order: Vec<u32> = (0..5000).collect();
            order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
            let weight = |id: &u32| f64::from(row[*id as usize]).exp();
            let total: f64 = order.iter().map(weight).sum();
            for share in [0.01f32, 0.5, 0.9, 0.99, 0.9999] {
                let mut sum = 0.0;
                let reaches = |id: &u32| {
                    sum += weight(id);
                    sum >= total * f64::from(share)
                };
                let n = order.iter().position(reaches).map_or(5000, |at| at + 1);
                let mut candidates = of(&row);
                candidates.keep_share(share);
                assert!(candidates.len().abs_diff(n) <= 1, "{share}: {} {n}", candidates.len());
                assert!(candidates.iter().all(|c| order[..n + 1].contains(&c.id)));
            }
        }
    }

    #[test]
    fn keep_share_keeps_at_least_one_and_no_more_than_needed() {
        let row = [2f32.ln(), 0.0, 0.0]; // probabilities 1/2, 1/4, 1/4
        for (share, expected) in [(0.0, vec![0]), (0.4, vec![0]), (0.6, vec![0, 1]), (0.8, vec![0, 1, 2])] {
            let mut candidates = of(&row);
            candidates.keep_share(share);
            assert_eq!(ids(&candidates), expected, "{share}");
        }
    }

    #[test]
    fn draw_follows_the_weights_in_both_forms() {
        let row = [1f32.ln(), f32::NAN, 3f32.ln()];
        for list in [false, true] {
            let mut candidates = of(&row);
            if list {
                candidates.keep_best(3);
            }
            assert_eq!(candidates.draw(0.0), Some(0));
            assert_eq!(candidates.draw(0.24), Some(0));
            assert_eq!(candidates.draw(0.26), Some(2));
            assert_eq!(candidates.draw(0.999_999_999), Some(2));
        }
    }

    #[test]
    fn update_and_soften_work_in_both_forms() {
        for list in [false, true] {
            let mut candidates = of(&[1.0, 2.0, 3.0]);
            if list {
                candidates.keep_best(3);
            }
            candidates.update(2, |x| x - 10.0);
            candidates.update(1, |_| f32::NAN);
            candidates.update(99, |x| x + 100.0);
            candidates.soften(0.5);
            assert_eq!(ids(&candidates), [0, 2], "list: {list}");
            assert_eq!(candidates.best(), Some(Candidate { id: 0, logit: 0.0 }));
            assert_eq!(candidates.iter().map(|c| c.logit).fold(0.0, f32::min), -16.0);
        }
    }
}
