//! Which weights are stored once though several names, uses or methods ask for them.

use std::collections::BTreeMap;

use etx_partitioner::backend::Delegate;
use etx_serializer::pte::SharedBlob;

use super::SharedWeight;

/// What is known before the file is laid out: the methods of each key, and what delegates share within themselves.
#[derive(Debug, Default)]
pub(super) struct Ties {
    methods: BTreeMap<String, String>,
    /// Keys in the order of their appearance, with the names they stand for, bytes, and what one constant saves.
    within: Vec<(String, Vec<String>, u64, u64)>,
}

/// The name of the weight in a key `partition/name`.
fn name(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, name)| name)
}

impl Ties {
    /// Notes the constants of a delegate.
    pub(super) fn note(&mut self, method: &str, delegate: &Delegate) {
        for (key, data) in &delegate.named_data {
            self.methods.insert(key.clone(), method.to_owned());
            if let Some(tie) = delegate.ties.iter().find(|t| t.key == *key) {
                let saved = data.byte_len().saturating_mul(tie.uses.saturating_sub(1));
                self.within.push((key.clone(), tie.weights.clone(), data.byte_len(), saved));
            }
        }
    }

    /// Everything that is shared, within delegates and, as the file was laid out, between them.
    pub(super) fn shared(&self, between: &[SharedBlob]) -> Vec<SharedWeight> {
        let mut found: Vec<SharedWeight> = Vec::new();
        let mut place: BTreeMap<&str, usize> = BTreeMap::new();
        let method = |key: &str| self.methods.get(key).cloned().unwrap_or_default();
        for (key, names, bytes, saved_bytes) in &self.within {
            place.insert(key, found.len());
            let entry = SharedWeight {
                names: names.clone(),
                methods: vec![method(key)],
                how: "identity",
                bytes: *bytes,
                saved_bytes: *saved_bytes,
            };
            found.push(entry);
        }
        for blob in between.iter().filter(|b| b.bytes > 0) {
            let at = *place.entry(&blob.same_as).or_insert_with(|| {
                let (names, methods) = (vec![name(&blob.same_as).to_owned()], vec![method(&blob.same_as)]);
                found.push(SharedWeight { names, methods, how: "identity", bytes: blob.bytes, saved_bytes: 0 });
                found.len() - 1
            });
            let Some(entry) = found.get_mut(at) else { continue };
            let (new, reader) = (name(&blob.key), method(&blob.key));
            if !entry.names.iter().any(|n| n == new) {
                entry.names.push(new.to_owned());
            }
            if !entry.methods.contains(&reader) {
                entry.methods.push(reader);
            }
            if blob.by_content {
                entry.how = "content";
            }
            entry.saved_bytes = entry.saved_bytes.saturating_add(blob.bytes);
        }
        found.retain(|e| e.saved_bytes > 0);
        found
    }
}
