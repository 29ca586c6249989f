//! Cutting text into words before BPE, by the names of `tokenizer.ggml.pre`.
//!
//! The rules are regular expressions of the models' own tokenizers (facts of those models, as llama.cpp lists them). They
//! run on a linear-time engine, which has no look-ahead; the one look-ahead they use, `\s+(?!\S)` — white space leaves its
//! last character to the word after it — is a rule of ours on matches of `\s+`. White space that no rule takes is a word.

use regex_automata::meta::{Config, Regex};
use regex_automata::util::syntax;

use super::vocabulary::shown;
use crate::error::{Error, Result};
use crate::limits;

/// How the text of one family is cut, and what else goes by the same name.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    /// One after the other, each on the pieces the one before left.
    rules: &'static [Rule],
    pub(crate) ignore_merges: bool,
    pub(crate) clean_spaces: bool,
    pub(crate) add_bos: bool,
}

/// One expression; `spaces` adds `\s+(?!\S)` behind it, with the last blank of a run left over.
#[derive(Debug)]
struct Rule {
    pattern: &'static str,
    spaces: bool,
}

const fn cut(pattern: &'static str) -> Rule {
    Rule { pattern, spaces: false }
}

const fn cut_and_spaces(pattern: &'static str) -> Rule {
    Rule { pattern, spaces: true }
}

/// A row of the table with nothing set.
const fn row(names: &'static [&'static str], rules: &'static [Rule]) -> PreTokenizer {
    PreTokenizer { names, rules, ignore_merges: false, clean_spaces: false, add_bos: false }
}

const GPT2: Rule = cut_and_spaces(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA3: Rule = cut_and_spaces(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
);
const QWEN2: Rule =
    cut_and_spaces(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+");
const QWEN35: Rule = cut_and_spaces(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
);
const TEKKEN: Rule = cut_and_spaces(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));
const GPT4O: Rule = cut_and_spaces(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));
const KIMI_K2: Rule = cut_and_spaces(concat!(
    r"\p{Han}+",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));
const SEED: Rule =
    cut_and_spaces(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+");
const DEEPSEEK3: Rule = cut_and_spaces(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
));
/// The letters with case, as the model's makers list them: what Unicode called so when they did.
const DEEPSEEK_LETTERS: Rule = cut(r"\s?[\p{Lu}\p{Ll}\p{Lt}&&[^ªºĸſ]]+");
const DIGIT: Rule = cut(r"\p{N}");
const THREE_DIGITS: Rule = cut("[0-9][0-9][0-9]");
const PUNCTUATION: Rule = cut(r"[\p{P}\$\+<=>\^~\|`]+");
const NO_PUNCTUATION: Rule = cut(" ?[^(\\s|.,!?…。，、।۔،)]+");

/// The table: names → rules.
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    row(&["default"], &[PUNCTUATION, GPT2, cut(r"\p{N}+"), THREE_DIGITS]),
    PreTokenizer {
        clean_spaces: true,
        ..row(
            &[
                "gpt-2",
                "phi-2",
                "mpt",
                "olmo",
                "jais",
                "exaone4",
                "gigachat",
                "a.x-4.0",
                "mellum",
                "jina-es",
                "jina-de",
                "jina-v2-es",
                "jina-v2-de",
                "modern-bert",
                "granite-docling",
            ],
            &[GPT2],
        )
    },
    PreTokenizer {
        ignore_merges: true,
        add_bos: true,
        ..row(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], &[LLAMA3])
    },
    row(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[LLAMA3]),
    row(&["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open"], &[QWEN2]),
    row(&["qwen35"], &[QWEN35]),
    PreTokenizer { ignore_merges: true, add_bos: true, ..row(&["tekken"], &[TEKKEN]) },
    row(&["gpt-4o", "llama4"], &[GPT4O]),
    row(&["kimi-k2"], &[KIMI_K2]),
    row(&["bailingmoe", "llada-moe", "seed-coder"], &[SEED]),
    row(
        &["deepseek-llm"],
        &[
            cut("[\r\n]"),
            DEEPSEEK_LETTERS,
            cut(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            cut(r"\s+$"),
            cut("[一-龥ࠀ-一가-퟿]+"),
            cut(r"\p{N}+"),
        ],
    ),
    row(&["deepseek-coder"], &[cut("[\r\n]"), cut(r"\s?\p{L}+"), cut(r"\s?\p{P}+"), cut("[一-龥ࠀ-一가-퟿]+"), DIGIT]),
    row(&["deepseek-v3", "hunyuan-dense", "joyai-llm"], &[cut(r"\p{N}{1,3}"), cut("[一-龥぀-ゟ゠-ヿ]+"), DEEPSEEK3]),
    row(&["falcon"], &[PUNCTUATION, GPT2, THREE_DIGITS]),
    PreTokenizer {
        clean_spaces: true,
        ..row(&["starcoder", "refact", "codeshell", "minerva-7b", "exaone"], &[DIGIT, GPT2])
    },
    row(&["command-r", "smollm"], &[DIGIT, GPT2]),
    row(&["poro-chat", "bloom", "gpt3-finnish"], &[NO_PUNCTUATION]),
    row(&["viking"], &[NO_PUNCTUATION, DIGIT]),
];

/// What follows a pattern with spaces in the files of the models.
const WRITTEN_SPACES: &str = r"|\s+(?!\S)|\s+";

/// The pattern of byte-level pre-tokenizers that name none.
pub(super) fn byte_level_pattern() -> String {
    GPT2.written()
}

impl Rule {
    /// As the files of the models spell it.
    fn written(&self) -> String {
        [self.pattern, if self.spaces { WRITTEN_SPACES } else { "" }].concat()
    }
}

impl PreTokenizer {
    /// The whole table.
    pub(super) fn all() -> &'static [PreTokenizer] {
        PRE_TOKENIZERS
    }

    /// The name it goes by first.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Its expressions as the files of the models spell them.
    pub(super) fn patterns(&self) -> Vec<String> {
        self.rules.iter().map(Rule::written).collect()
    }

    /// The row called `name`.
    pub(crate) fn find(name: &str) -> Result<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied().collect();
            Error::UnknownPreTokenizer { found: shown(name), known: known.join(", ") }
        })
    }
}

/// A pre-tokenizer's rules, compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Splitter {
    rules: Vec<Regex>,
}

/// The pattern that is `\s+(?!\S)`, by its place in a rule's list.
const SPACES: usize = 1;

impl Splitter {
    pub(crate) fn new(pre: &PreTokenizer) -> Result<Splitter> {
        let compile = |rule: &Rule| {
            compile(rule.pattern, rule.spaces).map_err(|e| Error::Vocabulary {
                key: "tokenizer.ggml.pre".into(),
                problem: format!("the rule does not compile: {e}"),
            })
        };
        Ok(Splitter { rules: pre.rules.iter().map(compile).collect::<Result<_>>()? })
    }

    /// The splitter of an expression that a file brings. The one look-ahead it may have is the usual one, at its end.
    pub(crate) fn from_pattern(pattern: &str) -> std::result::Result<Splitter, String> {
        if pattern.len() > limits::PATTERN_BYTES {
            return Err(format!("it is longer than {} bytes", limits::PATTERN_BYTES));
        }
        let (pattern, spaces) = match pattern.strip_suffix(r"|\s+(?!\S)|\s+") {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        Ok(Splitter { rules: vec![compile(pattern, spaces)?] })
    }

    /// The words of `text`, in order and without gaps, one after the other to `word`.
    pub(crate) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        split_by(&self.rules, text, word);
    }
}

fn compile(pattern: &str, spaces: bool) -> std::result::Result<Regex, String> {
    let patterns: &[&str] = if spaces { &[pattern, r"\s+"] } else { &[pattern] };
    let regex = Regex::builder().configure(Config::new()).syntax(syntax::Config::new()).build_many(patterns);
    regex.map_err(|error| match error.syntax_error() {
        Some(error) => error.to_string(),
        None => error.to_string(),
    })
}

fn split_by<'t>(rules: &[Regex], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((rule, rest)) = rules.split_first() else {
        if !text.is_empty() {
            word(text);
        }
        return;
    };
    let mut piece = |from: usize, to: usize| {
        if let Some(part) = text.get(from..to).filter(|part| !part.is_empty()) {
            split_by(rest, part, word);
        }
    };
    let mut done = 0;
    let mut from = 0;
    while let Some(found) = rule.find(regex_automata::Input::new(text).span(from..text.len())) {
        let (start, mut end) = (found.start(), found.end());
        if found.pattern().as_usize() == SPACES && end < text.len() {
            // Something that is no white space follows: leave it the last blank, unless there is only that one.
            let last = text.get(start..end).and_then(|blanks| blanks.chars().next_back()).map_or(1, char::len_utf8);
            if start + last < end {
                end -= last;
            }
        }
        piece(done, start);
        piece(start, end);
        done = end;
        // No rule matches nothing; should one, this still ends.
        from = end.max(from + usize::from(end == start));
        if !text.is_char_boundary(from) {
            break;
        }
    }
    piece(done, text.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> String {
        let splitter = Splitter::new(PreTokenizer::find(name).unwrap()).unwrap();
        let mut words = Vec::new();
        splitter.split(text, &mut |word| words.push(word.to_owned()));
        assert_eq!(words.concat(), text);
        words.join("|")
    }

    #[test]
    fn text_is_cut_as_the_models_cut_it() {
        let rows = [
            ("gpt-2", "Hello  world's 123!\n\n x", "Hello| | world|'s| 123|!|\n\n| x"),
            ("gpt-2", "a\tb  ", "a|\t|b|  "),
            ("llama-bpe", "It'S 12345 a\r\n\n  b", "It|'S| |123|45| a|\r\n\n| | b"),
            ("qwen2", "12 \u{3000}x", "1|2| |\u{3000}x"),
            ("command-r", "ab12 c", "ab|1|2| c"),
            ("default", "a,b 1234", "a|,|b| |123|4"),
            ("deepseek-v3", "1234 中文ab", "123|4| |中文|ab"),
            ("gpt-4o", "HelloWorld's", "Hello|World's"),
            ("tekken", "ABCdef gh1", "ABCdef| gh|1"),
            ("kimi-k2", "ab中文cd", "ab|中文|cd"),
            ("deepseek-llm", "Ab c\n12", "Ab| c|\n|12"),
            ("viking", "ab 12, c", "ab| |1|2|,| c"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(words(name, text), expected, "{name}");
        }
    }

    #[test]
    fn patterns_of_files_are_taken_or_refused() {
        let words = |pattern: &str, text: &str| {
            let mut words = Vec::new();
            Splitter::from_pattern(pattern).unwrap().split(text, &mut |word| words.push(word.to_owned()));
            words.join("|")
        };
        let known = concat!(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+", r"|\s+(?!\S)|\s+");
        assert_eq!(words(known, "it's  a 12"), "it|'s| | a| 12");
        assert_eq!(words("[a-z]+", "ab1cd"), "ab|1|cd");
        let long = "a".repeat(limits::PATTERN_BYTES + 1);
        for bad in ["(", "a(?=b)", r"a|\s+(?!\S)", "(((a{1000}){1000}){1000})", &long] {
            assert!(Splitter::from_pattern(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn every_row_compiles_and_loses_nothing() {
        for row in PRE_TOKENIZERS {
            for name in row.names {
                words(name, "a B1 \u{1f600}é\n\t '!\u{a0}日本 ");
            }
        }
        let error = PreTokenizer::find("nonesuch\x1b").unwrap_err().to_string();
        assert!(error.contains("nonesuch\\u{1b}") && error.contains("qwen2"), "{error}");
    }
}
