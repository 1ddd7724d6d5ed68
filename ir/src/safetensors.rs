//! Weights in safetensors files, one or sharded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::weights::{MappedFile, TensorData};

/// The tensors of one file, described.
///
/// # Errors
/// [`ErrorKind::Io`] when it cannot be mapped, [`ErrorKind::Format`] when its header is not one, [`ErrorKind::Unsupported`]
/// for an element type that torch has no name for.
pub fn open(path: impl AsRef<Path>) -> Result<BTreeMap<String, TensorData>, Error> {
    let path = path.as_ref();
    let place = |e: Error| e.within(path.display().to_string());
    let file = MappedFile::open(path)?;
    let (header, metadata) = safetensors::SafeTensors::read_metadata(file.bytes())
        .map_err(|e| place(Error::new(ErrorKind::Format, format!("not a safetensors file: {e}"))))?;
    // Offsets count from the end of the header: eight bytes of length, then as many of JSON.
    let base = header as u64 + 8;
    let mut tensors = BTreeMap::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let dtype = dtype(info.dtype)
            .ok_or_else(|| place(Error::new(ErrorKind::Unsupported, format!("tensor {name:?} has element type {:?}", info.dtype))))?;
        let shape = info.shape.iter().map(|&n| n as u64).collect();
        let data = TensorData::mapped(dtype, shape, file.clone(), base + info.data_offsets.0 as u64);
        tensors.insert(name.clone(), data.map_err(|e| place(e.within(format!("tensor {name:?}"))))?);
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of several files; a file that ends in `.json` is the index of a sharded set and stands for all of its shards.
///
/// # Errors
/// As [`open`]; [`ErrorKind::Weight`] when two files bring a tensor of one name.
pub fn open_all(paths: &[PathBuf]) -> Result<BTreeMap<String, TensorData>, Error> {
    let mut all = BTreeMap::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.extension().is_none_or(|e| e != "json") {
            files.push(path.clone());
            continue;
        }
        let place = |e: Error| e.within(path.display().to_string());
        let index: Index = serde_json::from_slice(MappedFile::open(path)?.bytes())
            .map_err(|e| place(Error::new(ErrorKind::Format, format!("not an index of safetensors files: {e}"))))?;
        let shards: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
        let folder = path.parent().unwrap_or(Path::new(""));
        for shard in shards {
            // A shard's name comes from a file: it must stay in that file's folder.
            if Path::new(&shard).file_name().is_none_or(|n| n != shard.as_str()) {
                return Err(place(Error::new(ErrorKind::Format, format!("shard {shard:?} is not a file name"))));
            }
            files.push(folder.join(shard));
        }
    }
    for path in files {
        for (name, data) in open(&path)? {
            if all.insert(name.clone(), data).is_some() {
                return Err(Error::new(ErrorKind::Weight, format!("tensor {name:?} is in {} and in a file before it", path.display())));
            }
        }
    }
    Ok(all)
}

/// The bytes of a file that holds these tensors. Memory is needed for all of them at once.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for an element type that safetensors has no name for; as [`TensorData::produce`].
pub fn encode(tensors: &BTreeMap<String, TensorData>) -> Result<Vec<u8>, Error> {
    let mut held = Vec::with_capacity(tensors.len());
    for (name, data) in tensors {
        let place = |e: Error| e.within(format!("tensor {name:?}"));
        let dtype = DTYPES.iter().find(|(_, ours)| *ours == data.dtype()).map(|(theirs, _)| *theirs);
        let dtype =
            dtype.ok_or_else(|| place(Error::new(ErrorKind::Unsupported, format!("safetensors has no element type {}", data.dtype()))))?;
        let shape: Vec<usize> = data.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
        held.push((name, dtype, shape, data.to_vec().map_err(place)?));
    }
    let bad = |e: safetensors::SafeTensorError| Error::new(ErrorKind::Weight, format!("these tensors do not make a safetensors file: {e}"));
    let views =
        held.iter().map(|(name, dtype, shape, bytes)| Ok((name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    safetensors::serialize(views, None).map_err(bad)
}

/// Element types that both sides have.
const DTYPES: &[(safetensors::Dtype, DType)] = {
    use safetensors::Dtype as S;
    &[
        (S::BOOL, DType::Bool),
        (S::U8, DType::UInt8),
        (S::I8, DType::Int8),
        (S::I16, DType::Int16),
        (S::U16, DType::UInt16),
        (S::I32, DType::Int32),
        (S::U32, DType::UInt32),
        (S::I64, DType::Int64),
        (S::U64, DType::UInt64),
        (S::F16, DType::Float16),
        (S::BF16, DType::BFloat16),
        (S::F32, DType::Float32),
        (S::F64, DType::Float64),
        (S::F8_E4M3, DType::Float8E4M3),
        (S::F8_E5M2, DType::Float8E5M2),
        (S::F8_E8M0, DType::Float8E8M0),
        (S::C64, DType::Complex64),
    ]
};

fn dtype(t: safetensors::Dtype) -> Option<DType> {
    DTYPES.iter().find(|(theirs, _)| *theirs == t).map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let tensor = |dtype, shape: &[u64], bytes: &[u8]| TensorData::inline(dtype, shape.to_vec(), bytes).unwrap();
        let tensors = BTreeMap::from([
            ("b".to_owned(), tensor(DType::Int64, &[], &7i64.to_le_bytes())),
            ("a".to_owned(), tensor(DType::BFloat16, &[2, 1], &[0x80, 0x3f, 0, 0x40])),
            ("none".to_owned(), tensor(DType::Bool, &[0, 3], &[])),
        ]);
        let path = std::env::temp_dir().join(format!("etx-safetensors-{}", std::process::id()));
        std::fs::write(&path, encode(&tensors).unwrap()).unwrap();
        let again = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again.keys().collect::<Vec<_>>(), ["a", "b", "none"]);
        for (name, data) in &tensors {
            assert_eq!(
                (data.dtype(), data.shape(), data.to_vec().unwrap()),
                (again[name].dtype(), again[name].shape(), again[name].to_vec().unwrap())
            );
        }
        let foreign = BTreeMap::from([("c".to_owned(), tensor(DType::Complex128, &[], &[0; 16]))]);
        assert_eq!(encode(&foreign).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
