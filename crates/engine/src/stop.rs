//! Stop strings across token borders: text that may be the start of one is held back, the stop string itself never
//! comes out. Works on text, not tokens, so the same string is found however the model spells it.

/// Watches the text of one answer.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Text that can be shown.
    pub(crate) text: String,
    /// A stop string is complete: nothing more may come.
    pub(crate) stopped: bool,
}

impl StopMatcher {
    /// Watches for any of these; empty strings are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        StopMatcher { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes the next piece and gives back what cannot be part of a stop string any more. When several stop strings
    /// are in it, the one that begins first counts.
    pub(crate) fn push(&mut self, piece: String) -> Released {
        if self.stops.is_empty() {
            return Released { text: piece, stopped: false };
        }
        if piece.is_empty() {
            return Released { text: piece, stopped: false };
        }
        self.held.push_str(&piece);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Released { text, stopped: true };
        }
        let keep_from = self.held.len() - self.longest_start();
        let kept = self.held.split_off(keep_from);
        Released { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// What is still held back when the answer ends otherwise: it was no stop string after all.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that are the start of a stop string, at most.
    fn longest_start(&self) -> usize {
        let start_of = |stop: &String| {
            let most = self.held.len().min(stop.len() - 1);
            let ends_with = |n: &usize| self.held.as_bytes().ends_with(&stop.as_bytes()[..*n]);
            // A start that ends inside a character cannot match: the held text is whole characters.
            (1..=most).rev().filter(|n| stop.is_char_boundary(*n)).find(ends_with).unwrap_or(0)
        };
        self.stops.iter().map(start_of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces in; the pieces that come out, the stop flag, and what `finish` brings if it did not stop.
    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], stopped: bool, rest: &str) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = Vec::new();
        let mut hit = false;
        for piece in pieces {
            assert!(!hit, "text after the stop");
            let released = matcher.push(piece.to_string());
            out.push(released.text);
            hit = released.stopped;
        }
        assert_eq!((out.as_slice(), hit), (expected.map_strings().as_slice(), stopped), "{stops:?} {pieces:?}");
        assert_eq!(matcher.finish(), rest);
    }

    trait MapStrings {
        fn map_strings(&self) -> Vec<String>;
    }
    impl MapStrings for &[&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(|s| s.to_string()).collect()
        }
    }

    #[test]
    fn rows() {
        check(&[], &["a", "b"], &["a", "b"], false, "");
        check(&[""], &["a"], &["a"], false, "");
        check(&["END"], &["one END two"], &["one "], true, "");
        check(&["END"], &["one E", "N", "D two"], &["one ", "", ""], true, "");
        check(&["END"], &["one E", "N", "X"], &["one ", "", "ENX"], false, "");
        check(&["END"], &["EEN", "EN", "D"], &["E", "EN", ""], true, "");
        check(&["END"], &["the E"], &["the "], false, "E");
        check(&["\n\n"], &["a\n", "b\n", "\nc"], &["a", "\nb", ""], true, "");
        check(&["終わり"], &["話は終", "わ", "らない"], &["話は", "", "終わらない"], false, "");
        check(&["終わり"], &["話は終", "わり。"], &["話は", ""], true, "");
        // The earlier one counts, even if the later one is first in the list.
        check(&["two", "one"], &["zero one two"], &["zero "], true, "");
        check(&["aab"], &["aa", "a", "ab"], &["", "a", "a"], true, "");
        check(&["ab", "abc"], &["xab"], &["x"], true, "");
        check(&["END"], &["", "E", ""], &["", "", ""], false, "E");
    }

    #[test]
    fn any_split_gives_the_same_text() {
        let text = "abcabcabdEeENDabc";
        let n = text.len();
        for first in 0..n {
            for second in first..n {
                let mut matcher = StopMatcher::new(&["abd".into(), "END".into()]);
                let mut out = String::new();
                let mut hit = false;
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    if !hit {
                        let released = matcher.push(piece.to_string());
                        out += &released.text;
                        hit = released.stopped;
                    }
                }
                assert_eq!((out.as_str(), hit), ("abcabc", true), "{first} {second}");
            }
        }
    }
}
