//! What to quantise and how: the rules that users write.

use std::fmt;
use std::str::FromStr;

use etx_ir::error::{Error, ErrorKind};
use regex::Regex;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Integers of so many bits and a scale (and, if asymmetric, a zero point) a group.
    Affine {
        /// 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Elements that share a scale.
        group: Group,
        /// How scales are chosen.
        method: Method,
    },
    /// Floats of 4 bits (E2M1), one E4M3 scale for 16.
    Nvfp4,
    /// Floats of 4 bits (E2M1), one power of two for 32.
    Mxfp4,
    /// Floats of 8 bits (E4M3), one power of two for 32.
    Mxfp8,
}

/// Elements of a row that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// So many.
    Of(u16),
    /// All of the row. The file repeats the scale for each 128 (64, 32) elements, since MLX has no larger groups.
    Row,
}

/// How the scale of a group is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The symmetric scale with the least squared error, found by turns with the codes (half-quadratic quantisation; what
    /// ExecuTorch's export scripts use).
    Hqq,
    /// From the largest magnitude.
    Symmetric,
    /// From the smallest and the largest value, with a zero point.
    Asymmetric,
}

/// The choice of a method, by name.
const METHODS: [(&str, Method); 3] = [("hqq", Method::Hqq), ("symmetric", Method::Symmetric), ("asymmetric", Method::Asymmetric)];
/// Widths that MLX packs.
const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// Groups that its kernels have.
const GROUPS: [u16; 3] = [32, 64, 128];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Affine { bits, group, method } => {
                write!(f, "{bits}w:")?;
                match group {
                    Group::Of(n) => write!(f, "{n}")?,
                    Group::Row => f.write_str("row")?,
                }
                match METHODS.iter().find(|(_, m)| m == method) {
                    Some((name, m)) if *m != Method::Hqq => write!(f, ":{name}"),
                    _ => Ok(()),
                }
            }
            Format::Nvfp4 => f.write_str("nvfp4"),
            Format::Mxfp4 => f.write_str("mxfp4"),
            Format::Mxfp8 => f.write_str("mxfp8"),
        }
    }
}

/// What uses a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// `aten.linear`.
    Linear,
    /// `aten.embedding`.
    Embedding,
    /// A stack of matrices of which `mlx.gather_mm` picks one a row.
    Expert,
}

impl Use {
    /// Name in rules and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Use::Linear => "linear",
            Use::Embedding => "embedding",
            Use::Expert => "expert",
        }
    }

    const ALL: [Use; 3] = [Use::Linear, Use::Embedding, Use::Expert];
}

/// One rule: what it is for, and what it wants.
#[derive(Clone, Debug)]
struct Rule {
    /// As it was written.
    text: String,
    /// Where, in bytes from the start of the rules.
    at: usize,
    uses: Vec<Use>,
    name: Option<Regex>,
    format: Option<Format>,
}

/// Rules in order; of those that fit a weight, the last one decides.
///
/// ```text
/// RULES    = RULE { ("," | ";" | newline) RULE }
/// RULE     = [ SELECTOR "=" ] FORMAT
/// SELECTOR = OPERATOR | "/" REGEX "/" | OPERATOR "/" REGEX "/"
/// OPERATOR = "linear" | "embedding" | "expert" | "all"
/// FORMAT   = "none" | BITS "w" [ ":" GROUP ] [ ":" METHOD ] | "nvfp4" | "mxfp4" | "mxfp8"
/// BITS     = "2" | "3" | "4" | "5" | "6" | "8"
/// GROUP    = "32" | "64" | "128" | "row"
/// METHOD   = "hqq" | "symmetric" | "asymmetric"
/// ```
///
/// A format without a selector is for linear layers and experts; a pattern without an operator is for every operator. Patterns
/// are looked for anywhere in the weight's name or in the path of the module that uses it; a slash in one is written `\/`.
/// Without a group, `8w` has one scale a row and the other widths have groups of 32; without a method it is `hqq`.
///
/// ```
/// use etx_passes::quantize::Rules;
///
/// let rules: Rules = r"4w:64, embedding=8w, /layers\.0\./=none".parse()?;
/// assert_eq!(rules.len(), 3);
/// let error = "4w, embedding=7w".parse::<Rules>().unwrap_err().to_string();
/// assert!(error.contains("rules, character 15: no width of 7 bits"), "{error}");
/// # Ok::<(), etx_ir::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the rules want of a weight used like this, known under these names; `None` if they leave it alone. Marks the
    /// rules that fit in `matched`.
    pub(super) fn format(&self, used: Use, names: &[&str], matched: &mut [bool]) -> Option<Format> {
        let mut wanted = None;
        for (rule, matched) in self.0.iter().zip(matched) {
            let named = rule.name.as_ref().is_none_or(|r| names.iter().any(|n| r.is_match(n)));
            if named && rule.uses.contains(&used) {
                *matched = true;
                wanted = rule.format;
            }
        }
        wanted
    }

    /// Rules that fitted nothing, as findings.
    pub(super) fn idle(&self, matched: &[bool]) -> Vec<String> {
        let idle = self.0.iter().zip(matched).filter(|(_, m)| !**m);
        idle.map(|(r, _)| format!("rule `{}` (rules, character {}) fits no weight", r.text, r.at + 1)).collect()
    }
}

/// A place in the rules, and what is wrong there.
struct Mistake {
    at: usize,
    what: String,
}

fn mistake<T>(at: usize, what: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake { at, what: what.into() })
}

impl FromStr for Rules {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (mut rules, mut findings) = (Vec::new(), Vec::new());
        for (at, piece) in pieces(text) {
            match rule(at, piece) {
                Ok(r) => rules.push(r),
                // For people: characters, from 1.
                Err(m) => {
                    let character = text.get(..m.at).map_or(0, |before| before.chars().count()) + 1;
                    findings.push(format!("rules, character {character}: {}", m.what));
                }
            }
        }
        if findings.is_empty() && rules.is_empty() {
            findings.push("the rules are empty".to_owned());
        }
        if findings.is_empty() {
            return Ok(Rules(rules));
        }
        Err(Error::many(ErrorKind::Unsupported, findings)
            .help("rules are `FORMAT` or `SELECTOR=FORMAT`, with commas between, such as `4w:64, embedding=8w, /lm_head/=none`"))
    }
}

/// The rules of a text with their places: split at separators that are in no pattern, without the blanks around.
fn pieces(text: &str) -> Vec<(usize, &str)> {
    let (mut out, mut start, mut inside, mut escaped) = (Vec::new(), 0, false, false);
    let mut add = |from: usize, to: usize| {
        if let Some(piece) = text.get(from..to) {
            let trimmed = piece.trim_start();
            if !trimmed.trim_end().is_empty() {
                out.push((from + piece.len() - trimmed.len(), trimmed.trim_end()));
            }
        }
    };
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = inside,
            '/' => inside = !inside,
            ',' | ';' | '\n' if !inside => {
                add(start, i);
                start = i + 1;
            }
            _ => {}
        }
    }
    add(start, text.len());
    out
}

fn rule(at: usize, text: &str) -> Result<Rule, Mistake> {
    let (selector, format, format_at) = match pattern(at, text)? {
        Some((operator, regex, rest, rest_at)) => {
            let after = rest.trim_start();
            let Some(format) = after.strip_prefix('=') else {
                return mistake(rest_at, "`=` and a format must follow the pattern");
            };
            (Some((operator, Some(regex))), format, rest_at + rest.len() - format.len())
        }
        None => match text.split_once('=') {
            Some((operator, format)) => (Some((operator.trim_end(), None)), format, at + text.len() - format.len()),
            None => (None, text, at),
        },
    };
    let (uses, name) = match selector {
        None => (vec![Use::Linear, Use::Expert], None),
        Some((operator, regex)) => {
            let uses = match operator {
                "all" => Use::ALL.to_vec(),
                "" if regex.is_some() => Use::ALL.to_vec(),
                _ => match Use::ALL.into_iter().find(|u| u.name() == operator) {
                    Some(u) => vec![u],
                    None => return mistake(at, format!("no operator {operator:?}: there are linear, embedding, expert and all")),
                },
            };
            (uses, regex)
        }
    };
    let trimmed = format.trim_start();
    let format = self::format(format_at + format.len() - trimmed.len(), trimmed)?;
    Ok(Rule { text: text.to_owned(), at, uses, name, format })
}

/// Operator, pattern, and what stands behind it with its place, if the rule has a pattern before its format.
fn pattern(at: usize, text: &str) -> Result<Option<(&str, Regex, &str, usize)>, Mistake> {
    let Some((operator, rest)) = text.split_once('/').filter(|(operator, _)| !operator.contains('=')) else { return Ok(None) };
    let start = at + operator.len() + 1;
    let mut escaped = false;
    let end = rest.char_indices().find(|&(_, c)| {
        let ends = c == '/' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let Some((source, behind)) = end.and_then(|(i, _)| Some((rest.get(..i)?, rest.get(i + 1..)?))) else {
        return mistake(start - 1, "the pattern has no closing `/`");
    };
    match Regex::new(&source.replace("\\/", "/")) {
        Ok(regex) => Ok(Some((operator.trim_end(), regex, behind, start + source.len() + 1))),
        // The parser draws the place on lines of its own; the last line says what is wrong.
        Err(e) => mistake(
            start,
            format!("the pattern is not understood: {}", e.to_string().lines().last().unwrap_or("").trim_start_matches("error: ")),
        ),
    }
}

fn format(at: usize, text: &str) -> Result<Option<Format>, Mistake> {
    match text {
        "none" => return Ok(None),
        "nvfp4" => return Ok(Some(Format::Nvfp4)),
        "mxfp4" => return Ok(Some(Format::Mxfp4)),
        "mxfp8" => return Ok(Some(Format::Mxfp8)),
        _ => {}
    }
    let mut parts = text.split(':');
    let width = parts.next().unwrap_or("");
    let Some(number) = width.strip_suffix('w').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) else {
        return mistake(at, format!("no format {width:?}: there are 2w, 3w, 4w, 5w, 6w, 8w, nvfp4, mxfp4, mxfp8 and none"));
    };
    let Some(bits) = BITS.into_iter().find(|b| number.parse() == Ok(*b)) else {
        return mistake(at, format!("no width of {number} bits: there are 2, 3, 4, 5, 6 and 8"));
    };
    let (mut group, mut method) = (None, None);
    let mut place = at + width.len();
    for part in parts {
        place += 1;
        let as_group = if part == "row" { Some(Group::Row) } else { part.parse().ok().filter(|n| GROUPS.contains(n)).map(Group::Of) };
        let as_method = METHODS.iter().find(|(name, _)| *name == part).map(|(_, m)| *m);
        match (as_group, as_method) {
            (Some(g), _) if group.is_none() && method.is_none() => group = Some(g),
            (_, Some(m)) if method.is_none() => method = Some(m),
            (None, None) => {
                return mistake(place, format!("neither a group (32, 64, 128, row) nor a method (hqq, symmetric, asymmetric): {part:?}"));
            }
            _ => return mistake(place, format!("{part:?} is one too many: a width, then a group, then a method")),
        }
        place += part.len();
    }
    let default = if bits == 8 { Group::Row } else { Group::Of(32) };
    Ok(Some(Format::Affine { bits, group: group.unwrap_or(default), method: method.unwrap_or(Method::Hqq) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rules: &str, used: Use, name: &str) -> String {
        let rules: Rules = rules.parse().unwrap();
        rules.format(used, &[name], &mut vec![false; rules.len()]).map_or("none".to_owned(), |f| f.to_string())
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = r"4w:64; embedding = 8w:128:symmetric, /layers\.[0-1]\.|a\/b{1,2}/=none
            linear/lm_head/=nvfp4";
        for (used, name, expected) in [
            (Use::Linear, "layers.2.up.weight", "4w:64"),
            (Use::Expert, "layers.2.up.weight", "4w:64"),
            (Use::Linear, "layers.1.up.weight", "none"),
            (Use::Linear, "a/bb", "none"),
            (Use::Embedding, "embed.weight", "8w:128:symmetric"),
            (Use::Embedding, "layers.0.weight", "none"),
            (Use::Linear, "lm_head.weight", "nvfp4"),
            (Use::Embedding, "lm_head.weight", "8w:128:symmetric"),
        ] {
            assert_eq!(chosen(rules, used, name), expected, "{used:?} {name}");
        }
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_export_scripts() {
        for (short, long) in [
            ("4w", "4w:32"),
            ("8w", "8w:row"),
            ("2w:hqq", "2w:32"),
            ("6w:asymmetric", "6w:32:asymmetric"),
            ("mxfp4", "mxfp4"),
            ("mxfp8", "mxfp8"),
        ] {
            assert_eq!(chosen(short, Use::Linear, "x"), long);
        }
        assert_eq!(chosen("4w", Use::Embedding, "x"), "none");
        assert_eq!(chosen("all=4w", Use::Embedding, "x"), "4w:32");
    }

    #[test]
    fn mistakes_are_all_named_with_their_places() {
        for (rules, findings) in [
            ("", vec!["the rules are empty"]),
            ("7w, é=4w,5x", vec!["character 1: no width of 7", "character 5: no operator \"é\"", "character 10: no format \"5x\""]),
            ("4w:48", vec!["character 4: neither a group"]),
            ("linear=4w:hqq:64", vec!["character 15: \"64\" is one too many"]),
            ("/a(/=4w", vec!["character 2: the pattern is not understood: unclosed group"]),
            ("linear/a,b", vec!["character 7: the pattern has no closing `/`"]),
            ("/a/ 4w", vec!["character 4: `=` and a format must follow"]),
            ("/a/=", vec!["character 5: no format \"\""]),
            ("4w:64:64", vec!["character 7: \"64\" is one too many"]),
        ] {
            let error = rules.parse::<Rules>().unwrap_err();
            assert_eq!(error.findings().len(), findings.len(), "{error}");
            for (found, expected) in error.findings().iter().zip(findings) {
                assert!(found.contains(expected), "{rules}: {found}");
            }
        }
    }

    #[test]
    fn rules_that_fit_nothing_are_named() {
        let rules: Rules = "4w, /head/=8w".parse().unwrap();
        let mut matched = vec![false; 2];
        rules.format(Use::Linear, &["up"], &mut matched);
        assert_eq!(rules.idle(&matched), ["rule `/head/=8w` (rules, character 5) fits no weight"]);
    }
}
