//! What a `tokenizer.json` must not ask for: checked before the tokenizers crate sees it.
//!
//! Replacements that follow each other can make a text grow without bound, and some numbers make the crate panic. Only the
//! parts that say how texts are rewritten are looked at here.

use serde::Deserialize;
use serde_json::Value;

/// A text may become so many times as long, whatever is in it. Honest files stay below a hundred.
const MOST_GROWTH: f64 = 4096.0;

/// Steps may nest so deep.
const MOST_DEPTH: u32 = 32;

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Fails with what is wrong with a file; what this does not know, the crate judges.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let parts: Parts = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    for (name, part) in [("normalizer", &parts.normalizer), ("pre_tokenizer", &parts.pre_tokenizer), ("decoder", &parts.decoder)] {
        let growth = growth(part, 0).map_err(|e| format!("{name}: {e}"))?;
        if growth > MOST_GROWTH {
            return Err(format!(
                "{name}: its replacements make a text up to {growth:.0} times as long; at most {MOST_GROWTH} are accepted"
            ));
        }
    }
    Ok(())
}

/// How many times as long a text can become.
fn growth(step: &Value, depth: u32) -> Result<f64, String> {
    if depth > MOST_DEPTH {
        return Err(format!("steps nested more than {MOST_DEPTH} deep"));
    }
    let length = |v: Option<&Value>| v.and_then(Value::as_str).map(str::len);
    let own = match step.get("type").and_then(Value::as_str) {
        Some("Replace") => {
            let content = length(step.get("content")).unwrap_or(0) as f64;
            let pattern = step.get("pattern");
            match length(pattern.and_then(|p| p.get("String")).or(pattern)) {
                Some(0) => return Err("a replacement of nothing".to_owned()),
                Some(n) => content / n as f64,
                // An expression may match a single byte, or nothing at every place.
                None => content.max(1.0) + 1.0,
            }
        }
        // Every piece gets it; a piece has at least a byte.
        Some("Prepend") => length(step.get("prepend")).unwrap_or(0) as f64 + 1.0,
        Some("Metaspace") => 4.0,
        Some("Strip") => {
            let most = ["start", "stop"].iter().filter_map(|k| step.get(k)?.as_u64()).max();
            if let Some(n) = most.filter(|n| *n > 1 << 16) {
                return Err(format!("{n} characters to strip"));
            }
            1.0
        }
        _ => 1.0,
    };
    let mut all = own.max(1.0);
    for list in ["normalizers", "pretokenizers", "decoders"] {
        for inner in step.get(list).and_then(Value::as_array).into_iter().flatten() {
            all *= growth(inner, depth + 1)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::check;

    fn with(normalizer: &str) -> Result<(), String> {
        check(format!("{{\"normalizer\": {normalizer}, \"model\": {{}}}}").as_bytes())
    }

    fn sequence(step: &str, times: usize) -> String {
        format!("{{\"type\": \"Sequence\", \"normalizers\": [{}]}}", vec![step; times].join(", "))
    }

    #[test]
    fn growth_without_bound_is_refused_and_that_of_real_files_is_not() {
        let twice = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
        assert!(with(twice).is_ok() && with(&sequence(twice, 12)).is_ok());
        assert!(with(&sequence(twice, 13)).unwrap_err().contains("8192 times"));
        assert!(with(&sequence(&sequence(twice, 4), 4)).is_err());
        let regex = r#"{"type": "Replace", "pattern": {"Regex": "a*"}, "content": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
        assert!(with(regex).is_ok() && with(&sequence(regex, 3)).is_err());
        let space = r#"{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}"#;
        assert!(with(&sequence(&format!("{{\"type\": \"Prepend\", \"prepend\": \"▁\"}}, {space}"), 2)).is_ok());
        assert!(with("null").is_ok());
    }

    #[test]
    fn what_makes_the_crate_panic_is_refused() {
        assert!(with(r#"{"type": "Replace", "pattern": {"String": ""}, "content": "ab"}"#).is_err());
        assert!(check(br#"{"decoder": {"type": "Strip", "content": "a", "start": 18446744073709551615, "stop": 0}}"#).is_err());
        assert!(check(br#"{"decoder":{"#).is_err());
    }
}
