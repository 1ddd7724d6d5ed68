//! Weights in safetensors files, one or sharded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::{MappedFile, TensorData};

/// The tensors of one file, described.
///
/// # Errors
/// [`ErrorKind::Io`] when it cannot be mapped, [`ErrorKind::Format`] when its header is not one, [`ErrorKind::Unsupported`]
/// for an element type that torch has no name for.
pub fn open(path: impl AsRef<Path>) -> Result<BTreeMap<String, TensorData>, Error> {
    open_file(&MappedFile::open(path)?)
}

/// The tensors of a file that is mapped already.
///
/// # Errors
/// As [`open`].
pub fn open_file(file: &MappedFile) -> Result<BTreeMap<String, TensorData>, Error> {
    let place = |e: Error| e.within(file.path().display().to_string());
    let (header, metadata) = safetensors::SafeTensors::read_metadata(file.bytes()).map_err(|e| {
        place(Error::new(ErrorKind::Format, format!("not a safetensors file: {e}")))
            .help("safetensors.torch.save_file writes such files; was this one cut short?")
    })?;
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
/// As [`open`]; [`ErrorKind::Weight`] when two files bring a tensor of one name, or a shard lacks what its index says it has.
pub fn open_all(paths: &[PathBuf]) -> Result<BTreeMap<String, TensorData>, Error> {
    let mut all = BTreeMap::new();
    for path in paths {
        let tensors = if path.extension().is_some_and(|e| e == "json") {
            open_index(path).map_err(|e| e.within(path.display().to_string()))?
        } else {
            open(path)?
        };
        for (name, data) in tensors {
            if all.insert(name.clone(), data).is_some() {
                let what = format!("tensor {name:?} is in {} and in a file given before it", path.display());
                return Err(Error::new(ErrorKind::Weight, what).help("give each file once, and only one that has the tensor"));
            }
        }
    }
    Ok(all)
}

fn open_index(path: &Path) -> Result<BTreeMap<String, TensorData>, Error> {
    let index: Index = serde_json::from_slice(MappedFile::open(path)?.bytes())
        .map_err(|e| Error::new(ErrorKind::Format, format!("not an index of safetensors files: {e}")))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in &index.weight_map {
        shards.entry(shard).or_default().push(name);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut all = BTreeMap::new();
    let mut missing = Vec::new();
    for (shard, names) in shards {
        // A shard's name comes from a file: it must stay in that file's folder.
        if Path::new(shard).file_name().is_none_or(|n| n != shard) {
            return Err(Error::new(ErrorKind::Format, format!("shard {shard:?} is not a file name")));
        }
        let mut tensors = open(folder.join(shard))?;
        for name in names {
            match tensors.remove(name) {
                Some(data) => _ = all.insert(name.to_owned(), data),
                None => missing.push(format!("tensor {name:?} is not in {shard}, where the index has it")),
            }
        }
    }
    if missing.is_empty() { Ok(all) } else { Err(Error::many(ErrorKind::Weight, missing)) }
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

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("etx-safetensors-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }

        /// A file with tensors of bytes, each two of the same value.
        fn tensors(&self, name: &str, tensors: &[(&str, u8)]) -> PathBuf {
            let data = |b: u8| TensorData::inline(DType::UInt8, vec![1, 2], [b; 2]).unwrap();
            let tensors = tensors.iter().map(|(name, b)| ((*name).to_owned(), data(*b))).collect();
            self.write(name, &encode(&tensors).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn bytes(t: &TensorData) -> &[u8] {
        t.bytes().unwrap()
    }

    #[test]
    fn tensors_are_ranges_of_the_file() {
        let folder = Folder::new("one");
        let tensors = open(folder.tensors("w.safetensors", &[("b", 7), ("a", 9)])).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((tensors["a"].dtype(), tensors["a"].shape(), bytes(&tensors["a"])), (DType::UInt8, &[1, 2][..], &[9, 9][..]));
        assert!(tensors["b"].file_range().is_some());
    }

    #[test]
    fn an_index_stands_for_its_shards() {
        let folder = Folder::new("sharded");
        folder.tensors("1.safetensors", &[("a", 1), ("b", 2)]);
        folder.tensors("2.safetensors", &[("c", 3), ("not in the index", 4)]);
        let index = folder.write(
            "model.safetensors.index.json",
            br#"{"metadata": {"total_size": 6}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#,
        );
        let more = folder.tensors("more.safetensors", &[("d", 5)]);
        let all = open_all(&[index, more]).unwrap();
        let values: Vec<_> = all.iter().map(|(name, t)| (name.as_str(), bytes(t)[0])).collect();
        assert_eq!(values, [("a", 1), ("b", 2), ("c", 3), ("d", 5)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let folder = Folder::new("wrong");
        let good = folder.tensors("good.safetensors", &[("a", 1)]);
        let whole = std::fs::read(&good).unwrap();
        let index = |map: &str| folder.write("x.index.json", format!("{{\"weight_map\": {map}}}").as_bytes());
        let cases: Vec<(Vec<PathBuf>, ErrorKind, &str)> = vec![
            (vec![good.clone(), good.clone()], ErrorKind::Weight, "tensor \"a\" is in "),
            (vec![folder.0.join("none.safetensors")], ErrorKind::Io, "none.safetensors: "),
            (vec![folder.0.clone()], ErrorKind::Io, "is not a regular file"),
            (vec![folder.write("empty.safetensors", b"")], ErrorKind::Format, "empty.safetensors: not a safetensors file"),
            (vec![folder.write("long.safetensors", &[0xff; 64])], ErrorKind::Format, "long.safetensors: not a safetensors file"),
            (vec![folder.write("x.json", b"[]")], ErrorKind::Format, "x.json: not an index of safetensors files"),
        ];
        for (paths, kind, says) in cases {
            let e = open_all(&paths).unwrap_err();
            assert!(e.kind() == kind && e.to_string().contains(says), "{e}");
        }
        for (map, kind, says) in [
            (
                r#"{"a": "good.safetensors", "b": "good.safetensors", "c": "good.safetensors"}"#,
                ErrorKind::Weight,
                "2 problems\n  tensor \"b\" is not in good",
            ),
            (r#"{"a": "../good.safetensors"}"#, ErrorKind::Format, "shard \"../good.safetensors\" is not a file name"),
            (r#"{"a": "/etc/passwd"}"#, ErrorKind::Format, "is not a file name"),
            (r#"{"a": ".."}"#, ErrorKind::Format, "is not a file name"),
            (r#"{"a": "lost.safetensors"}"#, ErrorKind::Io, "lost.safetensors"),
        ] {
            let e = open_all(&[index(map)]).unwrap_err();
            assert!(e.kind() == kind && e.to_string().contains(says), "{e}");
        }
        for len in 0..whole.len() {
            assert!(open(folder.write("short.safetensors", &whole[..len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let tensor = |dtype, shape: &[u64], bytes: &[u8]| TensorData::inline(dtype, shape.to_vec(), bytes).unwrap();
        let tensors = BTreeMap::from([
            ("b".to_owned(), tensor(DType::Int64, &[], &7i64.to_le_bytes())),
            ("a".to_owned(), tensor(DType::BFloat16, &[2, 1], &[0x80, 0x3f, 0, 0x40])),
            ("none".to_owned(), tensor(DType::Bool, &[0, 3], &[])),
        ]);
        let folder = Folder::new("written");
        let again = open(folder.write("w.safetensors", &encode(&tensors).unwrap())).unwrap();
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
