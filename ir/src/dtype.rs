//! Element types and the three numberings they have on disk.

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal size $size:literal pt2 $pt2:literal et $et:literal $kind:ident;)*) => {
        /// Element type of a tensor.
        ///
        /// One table gives each type its short name (as printed in `.etir`), its size in bytes and its number in
        /// the `.pt2` JSON (torch's `ScalarType` of the export schema) and in ExecuTorch files (c10's `ScalarType`).
        /// The numberings differ; see `pt2-format.md` §1.6 and `pte-format.md` §2.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant),* }

        impl DType {
            /// Every element type, in the order of the export schema.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// Short name, as used in `.etir` and in messages.
            pub const fn name(self) -> &'static str { match self { $(DType::$variant => $name),* } }

            /// Bytes of one element.
            pub const fn size(self) -> usize { match self { $(DType::$variant => $size),* } }

            /// Number in the `.pt2` JSON (schema 8).
            pub const fn pt2_code(self) -> u8 { match self { $(DType::$variant => $pt2),* } }

            /// Number in `.pte` files and in operator schemas (c10).
            pub const fn et_code(self) -> i8 { match self { $(DType::$variant => $et),* } }

            /// The type with this number in the `.pt2` JSON, if there is one.
            pub const fn from_pt2_code(code: i64) -> Option<DType> { match code { $($pt2 => Some(DType::$variant),)* _ => None } }

            /// The type with this number in ExecuTorch files, if there is one.
            pub const fn from_et_code(code: i8) -> Option<DType> { match code { $($et => Some(DType::$variant),)* _ => None } }

            /// The type with this short name, if there is one.
            pub fn from_name(name: &str) -> Option<DType> { match name { $($name => Some(DType::$variant),)* _ => None } }

            const fn kind(self) -> Kind { match self { $(DType::$variant => Kind::$kind),* } }
        }
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Float,
    Complex,
}

dtypes! {
    /// Unsigned 8-bit integer.
    UInt8 "u8" size 1 pt2 1 et 0 Int;
    /// Signed 8-bit integer.
    Int8 "i8" size 1 pt2 2 et 1 Int;
    /// Signed 16-bit integer.
    Int16 "i16" size 2 pt2 3 et 2 Int;
    /// Signed 32-bit integer.
    Int32 "i32" size 4 pt2 4 et 3 Int;
    /// Signed 64-bit integer.
    Int64 "i64" size 8 pt2 5 et 4 Int;
    /// IEEE half precision.
    Float16 "f16" size 2 pt2 6 et 5 Float;
    /// IEEE single precision.
    Float32 "f32" size 4 pt2 7 et 6 Float;
    /// IEEE double precision.
    Float64 "f64" size 8 pt2 8 et 7 Float;
    /// Two halves.
    Complex32 "c32" size 4 pt2 9 et 8 Complex;
    /// Two singles.
    Complex64 "c64" size 8 pt2 10 et 9 Complex;
    /// Two doubles.
    Complex128 "c128" size 16 pt2 11 et 10 Complex;
    /// One byte, 0 or 1.
    Bool "bool" size 1 pt2 12 et 11 Bool;
    /// The upper half of a single.
    BFloat16 "bf16" size 2 pt2 13 et 15 Float;
    /// Unsigned 16-bit integer.
    UInt16 "u16" size 2 pt2 28 et 27 Int;
    /// 8-bit float, 4 exponent bits, no infinities.
    Float8E4M3 "f8e4m3" size 1 pt2 29 et 24 Float;
    /// 8-bit float, 5 exponent bits.
    Float8E5M2 "f8e5m2" size 1 pt2 30 et 23 Float;
    /// `Float8E4M3` with one zero and one NaN.
    Float8E4M3Fnuz "f8e4m3fnuz" size 1 pt2 31 et 26 Float;
    /// `Float8E5M2` with one zero and one NaN.
    Float8E5M2Fnuz "f8e5m2fnuz" size 1 pt2 32 et 25 Float;
    /// 8-bit power of two (the scale of MX formats).
    Float8E8M0 "f8e8m0" size 1 pt2 33 et 44 Float;
    /// Unsigned 32-bit integer.
    UInt32 "u32" size 4 pt2 34 et 28 Int;
    /// Unsigned 64-bit integer.
    UInt64 "u64" size 8 pt2 35 et 29 Int;
}

impl DType {
    /// Whether values are real floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self.kind(), Kind::Float)
    }

    /// Whether values are integers (`bool` is not).
    pub const fn is_int(self) -> bool {
        matches!(self.kind(), Kind::Int)
    }

    /// The integers that are values of the type, as far as 64 signed bits go; `None` for types that are not of integers.
    pub const fn int_range(self) -> Option<std::ops::RangeInclusive<i64>> {
        Some(match self {
            DType::UInt8 => 0..=u8::MAX as i64,
            DType::UInt16 => 0..=u16::MAX as i64,
            DType::UInt32 => 0..=u32::MAX as i64,
            DType::UInt64 => 0..=i64::MAX,
            DType::Int8 => i8::MIN as i64..=i8::MAX as i64,
            DType::Int16 => i16::MIN as i64..=i16::MAX as i64,
            DType::Int32 => i32::MIN as i64..=i32::MAX as i64,
            DType::Int64 => i64::MIN..=i64::MAX,
            _ => return None,
        })
    }

    /// Whether values are complex numbers.
    pub const fn is_complex(self) -> bool {
        matches!(self.kind(), Kind::Complex)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::DType;

    #[test]
    fn numbers_round_trip() {
        for &t in DType::ALL {
            assert_eq!(DType::from_pt2_code(i64::from(t.pt2_code())), Some(t));
            assert_eq!(DType::from_et_code(t.et_code()), Some(t));
            assert_eq!(DType::from_name(t.name()), Some(t));
            assert_eq!(t.int_range().is_some(), t.is_int());
        }
    }
}
