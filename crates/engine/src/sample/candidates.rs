//! The tokens that may still be chosen, with their logits. Two forms: *all*, a dense copy of the row (the penalties
//! want to find a token by its id), then *some*, a list. No form is ever sorted as a whole, and no step allocates
//! after the first token: a vocabulary of 128k must cost well under a millisecond. The loops over whole rows are `scan`'s.

use super::scan::{copy_finite, exp, for_each_at_least, highest, place_of, weigh};

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
    /// The highest value of the row, unless a change made it unknown.
    row_best: Option<f32>,
    /// List form, in no particular order.
    list: Vec<Candidate>,
    is_list: bool,
    /// Weights of a draw or of a share.
    weights: Vec<f32>,
    /// Their sums by blocks.
    sums: Vec<f64>,
    /// Candidates among which a cut falls.
    edge: Vec<Candidate>,
}

/// Bins of [`Candidates::keep_share`].
const N_BINS: usize = 256;

/// Those that are looked at first: up to a distance of 16.
const NEAR_BINS: usize = 128;

impl Candidates {
    /// Starts over with a row of logits. False if none of them is finite.
    pub fn load(&mut self, logits: &[f32]) -> bool {
        let best = copy_finite(logits, &mut self.row);
        self.row_best = Some(best);
        self.list.clear();
        self.is_list = false;
        best > f32::NEG_INFINITY
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
                let changed = finite(change(*logit));
                self.row_best = match self.row_best {
                    Some(best) if *logit == best && changed < best => None,
                    best => best.map(|best| best.max(changed)),
                };
                *logit = changed;
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
            self.row_best = Some(softened(best)); // the order stays
        }
    }

    /// The best token: highest logit, lowest id among equals.
    pub fn best(&mut self) -> Option<Candidate> {
        if self.is_list {
            return self.list.iter().copied().min_by(Candidate::order);
        }
        let logit = self.best_logit();
        let mut best = None;
        if logit > f32::NEG_INFINITY {
            for_each_at_least(&self.row, logit, |id, logit| {
                best.get_or_insert(Candidate { id: id as u32, logit });
                f32::INFINITY // the first one is it
            });
        }
        best
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
        let (list, least) = (&mut self.list, least.max(f32::MIN));
        for_each_at_least(&self.row, least, |id, logit| {
            list.push(Candidate { id: id as u32, logit });
            least
        });
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
        let best = self.best_logit();
        if best == f32::NEG_INFINITY {
            return None;
        }
        let Candidates { row, list, weights, sums, .. } = self;
        if !self.is_list {
            let total = weigh(row, best, weights, sums);
            return place_of(weights, sums, u * total).map(|id| id as u32);
        }
        weights.clear();
        weights.extend(list.iter().map(|c| exp(c.logit - best)));
        let mut left = u * weights.iter().map(|&w| f64::from(w)).sum::<f64>();
        let mut chosen = None;
        for (candidate, &weight) in list.iter().zip(weights.iter()).filter(|(_, w)| **w > 0.0) {
            // Rounding may leave a little at the end: then the last token with any weight is it.
            chosen = Some(candidate.id);
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
        chosen
    }

    /// The highest logit; −∞ when there is none.
    fn best_logit(&mut self) -> f32 {
        if self.is_list {
            return self.list.iter().fold(f32::NEG_INFINITY, |best, c| best.max(c.logit));
        }
        *self.row_best.get_or_insert_with(|| highest(&self.row))
    }

    /// Dense to list: at least the `k` best tokens (or all), and seldom more than twice as many. One pass over the row
    /// with a threshold that rises whenever the list has filled up.
    fn gather_best(&mut self, k: usize) {
        let list = &mut self.list;
        list.clear();
        let room = k.saturating_mul(2).max(64);
        let mut threshold = f32::NEG_INFINITY;
        for_each_at_least(&self.row, f32::MIN, |id, logit| {
            // Equal to the threshold and a later id than all k kept ones: never among the best.
            if logit > threshold {
                list.push(Candidate { id: id as u32, logit });
                if list.len() == room {
                    let (_, last, _) = list.select_nth_unstable_by(k - 1, Candidate::order);
                    threshold = last.logit;
                    list.truncate(k);
                }
            }
            threshold.max(f32::MIN)
        });
        self.is_list = true;
    }

    /// Dense to list: the best tokens that reach `share`. The weights are summed by their distance from the best logit,
    /// which tells the bin where the cut falls; only that bin has to be ordered. The bins near the best one come first: as
    /// a rule the cut is there, and few tokens are.
    fn gather_share(&mut self, best: f32, share: f64) {
        let Candidates { row, list, weights, sums, edge, .. } = self;
        let wanted = weigh(row, best, weights, sums) * share;
        let mut bins = [0f64; N_BINS];
        let (mut cut, mut have) = (0, 0.0);
        for n_bins in [NEAR_BINS, N_BINS] {
            bins.fill(0.0);
            let least = least_within(n_bins, best);
            for_each_at_least(row, least, |id, logit| {
                bins[bin(logit, best)] += f64::from(weights[id]);
                least
            });
            (cut, have) = (0, 0.0);
            while cut + 1 < n_bins && have + bins[cut] < wanted {
                have += bins[cut];
                cut += 1;
            }
            if have + bins[cut] >= wanted {
                break;
            }
        }
        edge.clear();
        let least = least_within(cut + 1, best);
        for_each_at_least(row, least, |id, logit| {
            let (candidate, bin) = (Candidate { id: id as u32, logit }, bin(logit, best));
            if bin < cut {
                list.push(candidate);
            } else if bin == cut {
                edge.push(candidate);
            }
            least
        });
        let keep = count_of_share(edge, best, wanted - have);
        list.extend_from_slice(&edge[..keep]);
        self.is_list = true;
    }
}

/// No logit in the first `n_bins` bins is below this; finite.
fn least_within(n_bins: usize, best: f32) -> f32 {
    if n_bins >= N_BINS {
        return f32::MIN;
    }
    // A bin more than asked for, for what rounding does to bins.
    (best - (n_bins + 1) as f32 / 8.0).max(f32::MIN)
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
