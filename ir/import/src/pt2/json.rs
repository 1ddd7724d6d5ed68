//! From bytes to the types of `model.rs`, in both dialects of JSON that are about.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::model::{ExportedProgram, SchemaVersion, VersionOnly};
use etx_ir::error::{Error, ErrorKind};

/// A `model.json` larger than this is refused; a real one is some 2 to 4 kB a node.
const MAX_JSON: usize = 1 << 30;

/// The program that some JSON is.
///
/// # Errors
/// [`ErrorKind::Format`] with the path in the JSON, or the line and column where it stops being any;
/// [`ErrorKind::Version`] for a schema that is not supported.
pub(super) fn program(bytes: &[u8]) -> Result<ExportedProgram, Error> {
    if bytes.len() > MAX_JSON {
        return Err(Error::new(ErrorKind::Format, format!("{} bytes of JSON; at most {MAX_JSON} are accepted", bytes.len())));
    }
    // What is in order is read once; what is not, as often as it takes to say what is wrong.
    if let Ok(program) = serde_json::from_slice::<ExportedProgram>(bytes) {
        return supported(program.schema_version).map(|()| program);
    }
    let (version, bytes) = match serde_json::from_slice::<VersionOnly>(bytes) {
        Ok(version) => (version, Cow::Borrowed(bytes)),
        // Files of torch 2.5 and of ExecuTorch have bare NaN and Infinity, which JSON does not.
        Err(first) => {
            let quoted = quote_special_floats(bytes);
            match serde_json::from_slice::<VersionOnly>(&quoted) {
                Ok(version) => (version, Cow::Owned(quoted)),
                Err(_) => return Err(Error::new(ErrorKind::Format, format!("not the JSON of an exported program: {first}"))),
            }
        }
    };
    supported(version.schema_version)?;
    typed(&bytes)
}

fn supported(version: SchemaVersion) -> Result<(), Error> {
    match version {
        // 0.0 is what torch takes for any version.
        SchemaVersion { major: 5 | 7 | 8, .. } | SchemaVersion { major: 0, minor: 0 } => Ok(()),
        SchemaVersion { major, minor } => {
            let what = format!("schema version {major}.{minor}; 8, 7 and 5 are supported");
            let help =
                if major > 8 { "save the program with torch 2.15, or use a newer etx" } else { "save the program with torch 2.5 or later" };
            Err(Error::new(ErrorKind::Version, what).help(help))
        }
    }
}

/// A value of this type, with the path to what is wrong in the error.
///
/// # Errors
/// [`ErrorKind::Format`].
pub(super) fn typed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let bad = |what: String| Error::new(ErrorKind::Format, what);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| bad(format!("{}: {}", e.path(), e.inner())))?;
    json.end().map_err(|e| bad(e.to_string()))?;
    Ok(value)
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity` outside of strings.
fn quote_special_floats(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 64);
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&b, after)) = rest.split_first() {
        let token = [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|t| !in_string && rest.starts_with(t));
        let taken = match token {
            Some(token) => {
                out.push(b'"');
                token.len()
            }
            None => match b {
                b'\\' if in_string => rest.len().min(2),
                b'"' => {
                    in_string = !in_string;
                    1
                }
                _ => 1,
            },
        };
        let (here, next) = rest.split_at_checked(taken).unwrap_or((rest, after));
        out.extend(here);
        if token.is_some() {
            out.push(b'"');
        }
        rest = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_floats_are_quoted_and_nothing_else() {
        for (plain, quoted) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a": "NaN", "b": ["-Infinity", "Infinity"]}"#),
            (r#"["NaN", "a\"NaN", "\\", NaN]"#, r#"["NaN", "a\"NaN", "\\", "NaN"]"#),
            (r#"["-1", -1, "unfinished \"#, r#"["-1", -1, "unfinished \"#),
        ] {
            assert_eq!(String::from_utf8(quote_special_floats(plain.as_bytes())).unwrap(), quoted);
        }
    }
}
