//! Walking several strided operands of one shape together.

/// A loop nest over one shape and `N` operands with their own strides (in elements). Axes that can be walked as one
/// are merged, so that contiguous operands become a single long run whatever their rank.
#[derive(Clone, Debug)]
pub(crate) struct Nest<const N: usize> {
    /// Outermost first; never a length of 1. Lengths of 0 collapse to a single axis of length 0.
    axes: Vec<(usize, [isize; N])>,
}

impl<const N: usize> Nest<N> {
    /// A nest over `shape`; each operand has one stride for each axis.
    pub(crate) fn new(shape: &[usize], strides: [&[isize]; N]) -> Self {
        if shape.contains(&0) {
            return Nest { axes: vec![(0, [0; N])] };
        }
        let mut axes: Vec<(usize, [isize; N])> = Vec::with_capacity(shape.len());
        for (axis, &len) in shape.iter().enumerate() {
            if len == 1 {
                continue;
            }
            let step: [isize; N] = std::array::from_fn(|k| strides[k].get(axis).copied().unwrap_or(0));
            match axes.last_mut() {
                Some((outer_len, outer)) if (0..N).all(|k| outer[k] == step[k] * len as isize) => {
                    *outer_len *= len;
                    *outer = step;
                }
                _ => axes.push((len, step)),
            }
        }
        Nest { axes }
    }

    /// The merged axes, outermost first.
    pub(crate) fn axes(&self) -> &[(usize, [isize; N])] {
        &self.axes
    }

    /// Length of the innermost run and the steps of the operands along it.
    pub(crate) fn inner(&self) -> (usize, [isize; N]) {
        self.axes.last().copied().unwrap_or((1, [0; N]))
    }

    /// Number of positions.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().map(|a| a.0).product()
    }

    /// Calls `run(at, offsets, len)` for the positions `start..end` in row-major order, as runs along the innermost
    /// axis: `at` counts from `start`, `offsets` are relative to each operand's first element.
    pub(crate) fn runs(&self, start: usize, end: usize, mut run: impl FnMut(usize, [isize; N], usize)) {
        let (inner_len, inner_step) = self.inner();
        if start >= end || inner_len == 0 {
            return;
        }
        let outer = self.axes.len().saturating_sub(1);
        // Position of `start` on each axis.
        let mut index = vec![0usize; outer];
        let mut rest = start / inner_len;
        let mut along = start % inner_len;
        let mut base = [0isize; N];
        for axis in (0..outer).rev() {
            let (len, step) = self.axes[axis];
            index[axis] = rest % len;
            rest /= len;
            for k in 0..N {
                base[k] += step[k] * index[axis] as isize;
            }
        }
        let mut at = start;
        loop {
            let len = (inner_len - along).min(end - at);
            run(at - start, std::array::from_fn(|k| base[k] + inner_step[k] * along as isize), len);
            at += len;
            along = 0;
            if at >= end {
                return;
            }
            for axis in (0..outer).rev() {
                let (len, step) = self.axes[axis];
                index[axis] += 1;
                if index[axis] < len {
                    for k in 0..N {
                        base[k] += step[k];
                    }
                    break;
                }
                for k in 0..N {
                    base[k] -= step[k] * (len as isize - 1);
                }
                index[axis] = 0;
            }
        }
    }
}

/// Row-major strides of a contiguous array of this shape.
pub(crate) fn contiguous_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    let mut step = 1isize;
    for (stride, &len) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(len.max(1) as isize);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_axes_merge_and_broadcast_axes_do_not() {
        let shape = [2, 1, 3, 4];
        let strides = contiguous_strides(&shape);
        assert_eq!(Nest::new(&shape, [&strides]).axes(), &[(24, [1])]);
        let row = [0, 0, 0, 1];
        assert_eq!(Nest::new(&shape, [&strides, &row]).axes(), &[(6, [4, 0]), (4, [1, 1])]);
        assert_eq!(Nest::new(&[], [&[]]).len(), 1);
        assert_eq!(Nest::new(&[3, 0], [&[0, 1]]).len(), 0);
    }

    #[test]
    fn runs_visit_every_position_once_from_any_start() {
        let shape = [3, 4, 5];
        let strides = [20isize, 1, 4];
        let nest = Nest::new(&shape, [&strides]);
        let all: Vec<isize> = (0..60).map(|i| (i / 20) as isize * 20 + (i / 5 % 4) as isize + (i % 5) as isize * 4).collect();
        for (start, end) in [(0, 60), (7, 23), (59, 60), (5, 5)] {
            let mut seen = Vec::new();
            nest.runs(start, end, |at, [offset], len| {
                assert_eq!(at, seen.len());
                let step = nest.inner().1[0];
                seen.extend((0..len).map(|i| offset + step * i as isize));
            });
            assert_eq!(seen, all[start..end]);
        }
    }
}
