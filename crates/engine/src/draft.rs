//! Speculation without a second model: what a sequence said before is what it may say again (prompt lookup, Saxena 2023;
//! exact verification as in Leviathan et al. 2023, here with the sampler's own draws).
//!
//! A draft is the continuation of the longest earlier match of the sequence's end. It goes into the same pass as the last
//! token, and the sampler chain draws from every row's logits in order. A draw that equals the draft makes the next row
//! valid; the first that does not is itself the next token, and the rows after it are forgotten: their positions are
//! written anew. Each token is thus drawn from the same logits, with the same random number, as without a draft. The
//! logits themselves depend on a draft only as far as a device's arithmetic depends on the number of rows of a pass: not
//! at all up to [`MAX_EXACT_DRAFT`], by a rounding beyond (activations of few rows are kept finer, sums are taken in another
//! order). So drafts are that short in `Precision::F32` always, and with [`Speculation::Auto`], whose lengths depend on
//! measured times, whenever the answer must be the same in every run: without temperature, or with a seed that was asked
//! for.
//!
//! This file guesses and decides how far a guess pays. It knows neither passes nor caches.

/// Tokens of a draft at most.
pub const MAX_DRAFT: usize = 15;

/// Tokens of a draft at most where not one bit of the logits may depend on it: so few rows a device computes with the
/// same arithmetic, in the same order, as one. (Tests hold it to that.)
pub(crate) const MAX_EXACT_DRAFT: usize = 2;

/// Whether and how far to guess ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculation {
    /// Never: one token a pass.
    #[default]
    Off,
    /// As far as it pays, by the measured time of passes and the share of guesses that came true. Never so far that an
    /// answer could differ which a seed or a temperature of 0 promises to be the same.
    Auto,
    /// This many tokens (at most [`MAX_DRAFT`]) whenever there is a match, whether it pays or not.
    Fixed(usize),
}

/// Tokens at a sequence's end that must have come before.
const MIN_MATCH: usize = 2;

/// Longer matches are not told apart.
const MAX_MATCH: usize = 16;

/// Earlier places looked at, most recent first.
const MAX_PLACES: usize = 16;

/// Lengths of drafts that `Auto` chooses from: passes of 2, 4, 8 and 16 rows, the widths that devices have kernels for.
const LENGTHS: [usize; 4] = [1, 3, 7, MAX_DRAFT];

/// What a pass of one row more than a length costs, in passes of one row, before anything is measured. Optimistic, so
/// that it is tried.
const PRIOR_COST: [f64; 4] = [1.05, 1.15, 1.35, 1.8];

/// The share of guesses that come true before any is seen, for matches of 2, 3 to 5, 6 to 11 and more tokens.
const PRIOR_TRUE: [f64; 4] = [0.3, 0.5, 0.7, 0.8];

/// Weight of a new measurement.
const NEW: f64 = 0.15;

/// How fast a cost that is found too high is forgotten, for each guess not taken. A bad measurement is thus repeated after
/// some hundred tokens.
const FORGET: f64 = 0.005;

/// Each time the repetition finds that forgetting was wrong, the next one comes half as fast, down to this. Else a pass
/// that never pays would be tried again and again.
const FORGET_LEAST: f64 = 0.0003;

/// A cost is found wrong when the measurement is this much higher.
const WRONG: f64 = 1.1;

/// Tokens that must be gained for each one risked: time is measured with noise.
const LEAST_GAIN: f64 = 1.03;

fn class_of(matched: usize) -> usize {
    match matched {
        ..=2 => 0,
        3..=5 => 1,
        6..=11 => 2,
        _ => 3,
    }
}

/// What passes of several rows cost, as measured on this model and machine.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Seconds of a pass of one row; 0 before the first.
    single: f64,
    /// Passes of one row that a pass with a draft of each length costs.
    relative: [f64; LENGTHS.len()],
    /// How fast each of them is forgotten.
    forgetting: [f64; LENGTHS.len()],
}

impl Default for Costs {
    fn default() -> Self {
        Costs { single: 0.0, relative: PRIOR_COST, forgetting: [FORGET; LENGTHS.len()] }
    }
}

impl Costs {
    /// A pass of one decoding sequence with a draft of `n_draft` tokens took `seconds`.
    pub(crate) fn measured(&mut self, n_draft: usize, seconds: f64) {
        if n_draft == 0 {
            // An interruption by the system is not what a pass costs.
            let seconds = if self.single > 0.0 { seconds.min(4.0 * self.single) } else { seconds };
            self.single = if self.single > 0.0 { self.single + NEW * (seconds - self.single) } else { seconds };
        } else if self.single > 0.0 {
            let relative = (seconds / self.single).clamp(0.5, 64.0);
            let at = LENGTHS.partition_point(|&length| length < n_draft);
            if let (Some(cost), Some(rate)) = (self.relative.get_mut(at), self.forgetting.get_mut(at)) {
                *rate = if relative > WRONG * *cost { (*rate / 2.0).max(FORGET_LEAST) } else { FORGET };
                *cost += 2.0 * NEW * (relative - *cost);
            }
        }
    }

    fn forget(&mut self) {
        for ((cost, rate), prior) in self.relative.iter_mut().zip(self.forgetting).zip(PRIOR_COST) {
            *cost += rate * (prior - *cost);
        }
    }
}

/// Guesses what comes next in one sequence.
#[derive(Debug)]
pub(crate) struct Drafter {
    speculation: Speculation,
    /// `Auto` stays where drafts do not change a bit.
    exact: bool,
    /// The position after the latest place of each pair of tokens, by hash; 0 for none.
    latest: Vec<u32>,
    /// For each position, the one after the place before of a pair with the same hash; 0 for none.
    before: Vec<u32>,
    /// Share of guesses that came true, by the class of their match.
    truth: [f64; PRIOR_TRUE.len()],
    /// A guess that was not taken, to be compared with what comes: its class, position and token.
    shadow: Option<(usize, usize, u32)>,
    /// Tokens that matched for the draft in the pass.
    matched: usize,
    /// Tokens of drafts that were verified, all of them.
    pub(crate) n_drafted: usize,
    /// Those of them that came.
    pub(crate) n_accepted: usize,
}

impl Drafter {
    /// For a sequence of at most `n_positions` tokens, beginning with `prompt`. All memory is taken here: 8 to 12 bytes
    /// a position, none if nothing is to be guessed.
    pub(crate) fn new(speculation: Speculation, exact: bool, prompt: &[u32], n_positions: usize) -> Self {
        let n_positions = if speculation == Speculation::Off { 0 } else { n_positions.max(prompt.len()) };
        let n_slots = if n_positions == 0 { 0 } else { n_positions.next_power_of_two().max(64) };
        let mut drafter = Drafter {
            speculation,
            exact,
            latest: vec![0; n_slots],
            before: Vec::with_capacity(n_positions),
            truth: PRIOR_TRUE,
            shadow: None,
            matched: 0,
            n_drafted: 0,
            n_accepted: 0,
        };
        drafter.learn(prompt);
        drafter
    }

    /// Nothing is guessed any more.
    pub(crate) fn switch_off(&mut self) {
        self.speculation = Speculation::Off;
    }

    /// Takes note of the tokens it has not seen yet.
    fn learn(&mut self, tokens: &[u32]) {
        for end in self.before.len()..tokens.len() {
            let slot = tokens.get(..=end).and_then(|seen| self.slot(seen)).and_then(|slot| self.latest.get_mut(slot));
            // Positions are a device's 32 bits.
            self.before.push(slot.map_or(0, |slot| std::mem::replace(slot, end as u32 + 1)));
        }
    }

    /// Where the last pair of these tokens is noted.
    fn slot(&self, seen: &[u32]) -> Option<usize> {
        let &[.., a, b] = seen else { return None };
        let mixed = (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some((mixed >> 32) as usize & self.latest.len().checked_sub(1)?)
    }

    /// The place whose past agrees longest with the end of `tokens`, the most recent among equals: the position after it
    /// and how many tokens agree.
    fn longest_match(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize)> = None;
        let mut place = *self.before.last()? as usize;
        for _ in 0..MAX_PLACES {
            if place == 0 {
                break;
            }
            let past = tokens.get(..place)?;
            let agree = past.iter().rev().zip(tokens.iter().rev()).take(MAX_MATCH).take_while(|(a, b)| a == b).count();
            if agree >= MIN_MATCH && best.is_none_or(|(_, most)| agree > most) {
                best = Some((place, agree));
            }
            if agree == MAX_MATCH {
                break;
            }
            place = *self.before.get(place - 1)? as usize;
        }
        best
    }

    /// Guesses at most `room` tokens after `tokens`, none that `ends` the answer, into `draft`.
    pub(crate) fn guess(
        &mut self,
        tokens: &[u32],
        room: usize,
        costs: &mut Costs,
        ends: impl Fn(u32) -> bool,
        draft: &mut Vec<u32>,
    ) {
        draft.clear();
        if self.speculation == Speculation::Off {
            return;
        }
        self.learn(tokens);
        self.compare_shadow(tokens);
        let Some((place, matched)) = self.longest_match(tokens) else { return };
        let wanted = match self.speculation {
            Speculation::Off => 0,
            Speculation::Fixed(n) => n.min(MAX_DRAFT),
            Speculation::Auto => self.length(matched, if self.exact { room.min(MAX_EXACT_DRAFT) } else { room }, costs),
        };
        // Where the past is too short it goes on with the draft itself: a loop repeats.
        for at in place..place + wanted.min(room) {
            let next = tokens.get(at).or_else(|| draft.get(at - tokens.len())).copied();
            match next.filter(|&next| !ends(next)) {
                Some(next) => draft.push(next),
                None => break,
            }
        }
        self.matched = matched;
        if draft.is_empty() {
            self.shadow = tokens.get(place).map(|&token| (class_of(matched), tokens.len(), token));
            if wanted == 0 {
                costs.forget();
            }
        }
    }

    /// The length, at most `room`, that brings most tokens for its time; 0 when none pays.
    fn length(&self, matched: usize, room: usize, costs: &Costs) -> usize {
        // Nothing to compare with yet: a pass of one row comes first.
        if costs.single == 0.0 {
            return 0;
        }
        let (mut tokens, mut chance, mut drafted) = (1.0, 1.0, 0);
        let (mut best, mut best_rate) = (0, LEAST_GAIN);
        for (&length, cost) in LENGTHS.iter().zip(costs.relative) {
            if drafted >= room {
                break;
            }
            while drafted < length.min(room) {
                chance *= self.truth.get(class_of(matched + drafted)).copied().unwrap_or(0.0);
                tokens += chance;
                drafted += 1;
            }
            if tokens / cost > best_rate {
                (best, best_rate) = (drafted, tokens / cost);
            }
        }
        best
    }

    /// A guess that was not taken tells as much as one that was.
    fn compare_shadow(&mut self, tokens: &[u32]) {
        if let Some((class, position, guessed)) = self.shadow.take()
            && let Some(&came) = tokens.get(position)
        {
            self.saw(class, guessed == came);
        }
    }

    /// What became of a draft of `n_draft` tokens: the first `n_accepted` came, and `refused` if another came after them.
    pub(crate) fn verified(&mut self, n_draft: usize, n_accepted: usize, refused: bool) {
        self.n_drafted += n_draft;
        self.n_accepted += n_accepted;
        (0..n_accepted).for_each(|at| self.saw(class_of(self.matched + at), true));
        if refused {
            self.saw(class_of(self.matched + n_accepted), false);
        }
    }

    fn saw(&mut self, class: usize, came_true: bool) {
        if let Some(truth) = self.truth.get_mut(class) {
            *truth += NEW * (if came_true { 1.0 } else { 0.0 } - *truth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is guessed after these letters: at most `room` tokens, `.` ends.
    #[track_caller]
    fn check(text: &str, room: usize, expected: &str) {
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let mut draft = vec![7];
        // Learned at once, or token by token.
        for known in [tokens.len(), 0] {
            let mut drafter = Drafter::new(Speculation::Fixed(6), false, &tokens[..known], tokens.len());
            for seen in known..=tokens.len() {
                let ends = |token| token == u32::from(b'.');
                drafter.guess(&tokens[..seen], room, &mut Costs::default(), ends, &mut draft);
            }
            let guessed: String = draft.iter().map(|&token| char::from(token as u8)).collect();
            assert_eq!(guessed, expected, "{text}");
            assert!(drafter.before.capacity() == tokens.len(), "no memory beyond what was asked for");
        }
    }

    #[test]
    fn guesses() {
        check("", 9, "");
        check("a", 9, "");
        check("abcdef", 9, "");
        check("abcdefgh ab", 9, "cdefgh");
        check("abcdefgh ab", 3, "cde");
        check("abcdefgh ab", 0, "");
        check("abX abY ab", 9, "Y abY "); // the most recent
        check("xabX abY xab", 9, "X abY "); // but the longest first
        check("ababab", 9, "ababab"); // a loop goes on
        check("aaaa", 2, "aa");
        check("abc. ab", 9, "c"); // not beyond an end
        check("ab. ab", 9, "");
    }

    fn auto(truth: f64, relative: [f64; 4]) -> (Drafter, Costs) {
        let mut drafter = Drafter::new(Speculation::Auto, false, &[], 64);
        drafter.truth = [truth; 4];
        (drafter, Costs { single: 1.0, relative, ..Costs::default() })
    }

    #[test]
    fn lengths_that_pay() {
        #[track_caller]
        fn check(truth: f64, relative: [f64; 4], expected: usize) {
            let (drafter, costs) = auto(truth, relative);
            assert_eq!(drafter.length(2, 15, &costs), expected, "{truth} {relative:?}");
        }
        check(0.95, PRIOR_COST, 15);
        check(0.7, PRIOR_COST, 7);
        check(0.5, PRIOR_COST, 3);
        check(0.05, PRIOR_COST, 0);
        check(0.9, [2.0, 4.0, 8.0, 16.0], 0); // rows that cost as much as passes
        check(0.99, [1.9, 2.2, 2.5, 3.0], 15);
        check(1.0, [1.0; 4], 15);
        check(0.0, [1.0; 4], 0);
        let (drafter, costs) = auto(0.95, PRIOR_COST);
        for (room, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (5, 5), (9, 7), (14, 14)] {
            assert_eq!(drafter.length(2, room, &costs), expected, "{room}");
        }
        assert_eq!(drafter.length(9, 15, &Costs::default()), 0, "nothing measured yet");
    }

    #[test]
    fn what_does_not_come_true_stops_and_what_does_begins_again() {
        let (mut drafter, costs) = auto(0.9, PRIOR_COST);
        drafter.matched = 2;
        let n = (0..).find(|_| {
            let length = drafter.length(2, 15, &costs);
            drafter.verified(length, 0, true);
            length == 0
        });
        assert!(n.is_some_and(|n| n < 20), "{n:?}");
        // Guesses that are not taken are compared with what comes.
        let n = (0..).find(|_| {
            drafter.shadow = Some((0, 0, 5));
            drafter.compare_shadow(&[5]);
            drafter.length(2, 15, &costs) > 0
        });
        assert!(n.is_some_and(|n| n < 20), "{n:?}");
    }

    /// Time for a token, in passes of one row, over 4000 tokens of a text that always matches and of which `truth` comes
    /// true, on a device where a pass of `n` rows takes `cost(n)`.
    fn time_of_a_token(truth: f64, cost: fn(f64) -> f64) -> f64 {
        let mut drafter = Drafter::new(Speculation::Auto, false, &[], 64);
        let mut costs = Costs::default();
        let mut dice = crate::sample::Xoshiro256::new(9);
        let (mut n_tokens, mut time) = (0, 0.0);
        while n_tokens < 4000 {
            let length = drafter.length(4, MAX_DRAFT, &costs);
            let n_true = (0..length).take_while(|_| dice.next_f64() < truth).count();
            drafter.matched = 4;
            if length == 0 {
                drafter.saw(class_of(4), dice.next_f64() < truth);
                costs.forget();
            } else {
                drafter.verified(length, n_true, n_true < length);
            }
            let seconds = cost((length + 1) as f64);
            costs.measured(length, seconds);
            n_tokens += n_true + 1;
            time += seconds;
        }
        time / n_tokens as f64
    }

    /// It stops by itself when guesses are wrong, and when several rows cost more than they save; else it pays.
    #[test]
    fn it_costs_little_where_it_does_not_pay() {
        #[track_caller]
        fn check(truth: f64, cost: fn(f64) -> f64, least: f64, most: f64) {
            let time = time_of_a_token(truth, cost);
            assert!((least..=most).contains(&time), "{truth}: {time}");
        }
        check(0.0, |n| n, 1.0, 1.05);
        check(0.0, |_| 1.0, 1.0, 1.0);
        check(0.1, |n| 0.9 + 0.1 * n, 0.9, 1.05);
        check(0.9, |n| n, 1.0, 1.08); // every row costs a pass: nothing can be gained
        check(0.5, |n| if n > 1.0 { 2.0 } else { 1.0 }, 0.95, 1.1); // a kernel for several columns that costs double
        check(0.9, |n| 0.95 + 0.05 * n, 0.1, 0.35);
        check(0.6, |n| 0.95 + 0.05 * n, 0.4, 0.65);
        // The unit of time does not matter.
        let fast = time_of_a_token(0.8, |n| 0.9 + 0.1 * n);
        let slow = time_of_a_token(0.8, |n| 60.0 * (0.9 + 0.1 * n)) / 60.0;
        assert!((fast / slow - 1.0).abs() < 1e-9, "{fast} {slow}");
    }

    #[test]
    fn a_cost_measured_in_a_bad_moment_is_forgotten() {
        let mut costs = Costs::default();
        costs.measured(3, 1.0);
        assert_eq!(costs.relative, PRIOR_COST, "nothing to compare with");
        costs.measured(0, 0.1);
        (0..50).for_each(|_| costs.measured(2, 3.0));
        assert!(costs.relative[1] > 20.0 && costs.relative[0] == PRIOR_COST[0], "{costs:?}");
        (0..1500).for_each(|_| costs.forget());
        assert!(costs.relative[1] < 1.2, "{costs:?}");
        costs.measured(0, 100.0);
        assert!(costs.single < 0.2, "{costs:?}");
    }
}
