//! The loops of a format, whichever it is.

use super::affine::{Affine, Search};
use super::element::Element;
use super::float::Float;

/// A format with all that its loops need to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    /// Scales with zero points.
    Affine(Affine),
    /// Scales with the bytes that stand for them.
    Float(Float),
}

impl Kernel {
    /// Elements of a group.
    pub(super) fn group(&self) -> usize {
        match self {
            Kernel::Affine(a) => a.group,
            Kernel::Float(f) => f.group(),
        }
    }

    /// Type of the weight.
    pub(super) fn element(&self) -> Element {
        match self {
            Kernel::Affine(a) => a.element,
            Kernel::Float(f) => f.element,
        }
    }

    /// Bytes of the codes of a group.
    pub(super) fn code_bytes(&self) -> usize {
        match self {
            Kernel::Affine(a) => a.group,
            Kernel::Float(f) => f.code_bytes(),
        }
    }

    /// Chooses the scale of each group of `w`, and the byte beside it, improving them at most `turns` times.
    pub(super) fn choose(&self, w: &[f32], turns: usize, scales: &mut [f32], beside: &mut [i8], search: &mut Search) {
        match self {
            Kernel::Affine(a) => a.choose(w, turns, scales, beside, search),
            Kernel::Float(f) => f.choose(w, scales, beside),
        }
    }

    /// Writes the codes of `w`.
    pub(super) fn codes(&self, w: &[f32], scales: &[f32], beside: &[i8], out: &mut [u8]) {
        match self {
            Kernel::Affine(a) => a.codes(w, scales, beside, out),
            Kernel::Float(f) => f.codes(w, scales, out),
        }
    }

    /// Writes the numbers that the codes of `w` stand for.
    pub(super) fn numbers(&self, w: &[f32], scales: &[f32], beside: &[i8], out: &mut [f32]) {
        match self {
            Kernel::Affine(a) => a.numbers(w, scales, beside, out),
            Kernel::Float(f) => f.numbers(w, scales, out),
        }
    }

    /// Name of the recipe.
    pub(super) fn recipe(&self) -> String {
        match self {
            Kernel::Affine(a) => format!("{:?} {} to {}, groups of {}", a.method, a.low, a.high, a.group),
            Kernel::Float(f) => format!("{:?}", f.kind),
        }
    }
}
