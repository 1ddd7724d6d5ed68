//! One instruction.

use etx_ir::DType;
use etx_mlx::{Instr, IntOrVid, IntOrVidOrTid, Tid, Vid, VidOrTid};

use super::cache::Step;
use super::{Machine, Scalar, scalar_i32};
use crate::engine::{Binary, Conv, Engine, Kernel, Quantized, Reduce, Rope, Unary};
use crate::error::{Error, Result};
use crate::limits;

/// What the reference's interpreter demands of the sizes of what these instructions make: none of them is zero, and all together are at
/// most 4 GiB. A file that asks for more would fail there; it must not pass here.
fn bounded(sizes: impl IntoIterator<Item = i64>, dtype: DType) -> Result<()> {
    const MOST: i64 = 4 << 30;
    let mut bytes = dtype.size() as i64;
    for n in sizes {
        if n <= 0 {
            return Err(Error::shape(format!(
                "every size must be positive, found {n}: MLX programs make no tensor without elements this way"
            )));
        }
        bytes = bytes.checked_mul(n).filter(|&all| all <= MOST).ok_or_else(|| Error::limit("a result of more than 4 GiB"))?;
    }
    Ok(())
}

/// What a round of a scan counts as beside its body, in instructions: it takes slices and keeps results.
const ROUND: u64 = 4;

impl<E: Engine> Machine<E> {
    /// Runs one instruction (and the chains it calls).
    pub(super) fn execute(&mut self, instr: &Instr) -> Result<()> {
        if let Some((op, x, out)) = Unary::of(instr) {
            let result = self.engine.unary(op, self.get(x)?)?;
            return self.set(out, result);
        }
        if let Some((op, a, b, out)) = Binary::of(instr) {
            let result = self.engine.binary(op, self.get(a)?, self.get(b)?)?;
            return self.set(out, result);
        }
        if let Some((op, x, axes, keepdims, out)) = Reduce::of(instr) {
            let result = self.engine.reduce(op, self.get(x)?, axes, keepdims)?;
            return self.set(out, result);
        }
        if let Some((out, result)) = self.convolution(instr)? {
            return self.set(out, result);
        }
        if let Some((out, result)) = self.scalar(instr)? {
            return self.set_value(out, Scalar::Int(result));
        }
        match *instr {
            Instr::Noop {} => return Ok(()),
            Instr::If { cond, then_chain_idx, else_chain_idx } => {
                let chain = if self.truth(cond)? { then_chain_idx } else { else_chain_idx };
                return self.run_chain(chain, false);
            }
            Instr::Scan { ref originals, ref sliced, ref outputs, body_chain_idx, scan_axis, .. } => {
                return self.scan(originals, sliced, outputs, body_chain_idx, scan_axis);
            }
            Instr::Split { x, ref outs, ref sizes, axis } => {
                let pieces = self.engine.split(self.get(x)?, &self.ints(sizes)?, axis, outs.len())?;
                return outs.iter().zip(pieces).try_for_each(|(&out, piece)| self.set(out, piece));
            }
            Instr::MetalKernel { ref name, ref inputs, ref outputs, .. } => {
                let inputs = inputs.iter().map(|&t| self.get(t).cloned()).collect::<Result<_>>()?;
                let kernel = Kernel { name, inputs, outputs: self.kernel_results(instr)? };
                let results = self.engine.metal_kernel(&kernel)?;
                return outputs.iter().zip(results).try_for_each(|(&out, result)| self.set(out, result));
            }
            Instr::SliceUpdate { dst, update, out, axis, start, stop, step } => {
                let (axis, bounds) = (self.int(axis)?, (self.int(start)?, self.int(stop)?));
                let update = self.get(update)?.clone();
                return self.update(dst, out, |engine, dst| engine.slice_update(dst, &update, axis, bounds, step));
            }
            Instr::IndexCopy { dst, update, indices, out, axis } => {
                let (update, indices) = (self.get(update)?.clone(), self.get(indices)?.clone());
                return self.update(dst, out, |engine, dst| engine.index_copy(dst, &update, &indices, axis));
            }
            Instr::UpdateAndAttend { q, k, v, position, out, layer_id, scale, out_dtype } => {
                let (Some(layer), Some(scale)) = (layer_id, scale) else {
                    return Err(Error::argument("a cache update without layer number or scale"));
                };
                let dtype = self.engine.dtype(self.get(position)?);
                if !matches!(dtype, DType::Int32 | DType::Int64) {
                    return Err(Error::dtype(format!("the position of a cache update must be i32 or i64, not {dtype}")));
                }
                let position = self.engine.item_int(&self.first(position)?)?;
                let (q, k, v) = (self.get(q)?.clone(), self.get(k)?.clone(), self.get(v)?.clone());
                let step = Step { q: &q, k: &k, v: &v, position, layer, scale, out_dtype };
                let result = self.caches.update_and_attend(&self.engine, step)?;
                return self.set(out, result);
            }
            _ => {}
        }
        let (out, result) = self.compute(instr)?;
        self.set(out, result)
    }

    /// The instructions that compute one tensor from others.
    fn compute(&self, instr: &Instr) -> Result<(Tid, E::Array)> {
        let e = &self.engine;
        let get = |tid: Tid| self.get(tid);
        let maybe = |tid: Option<Tid>| tid.map(get).transpose();
        let all = |tids: &[Tid]| tids.iter().map(|&t| get(t).cloned()).collect::<Result<Vec<_>>>();
        Ok(match *instr {
            Instr::IdCopy { x, out } => (out, get(x)?.clone()),
            Instr::Contiguous { x, out } => (out, e.contiguous(get(x)?)?),
            Instr::AsType { x, out, scalar_type } => (out, e.cast(get(x)?, scalar_type)?),
            Instr::Round { x, out, decimals } => (out, e.round(get(x)?, decimals)?),
            Instr::Gelu { x, out, ref approximate } => (out, e.gelu(get(x)?, approximate)?),
            Instr::Where { condition, x, y, out } => (out, e.select(get(condition)?, get(x)?, get(y)?)?),
            Instr::Clip { x, out, a_min, a_max } => (out, e.clip(get(x)?, maybe(a_min)?, maybe(a_max)?)?),

            Instr::Var { x, out, ref axes, keepdims, ddof } => {
                (out, e.variance(get(x)?, axes.as_deref().unwrap_or(&[]), keepdims, ddof, false)?)
            }
            Instr::Std { x, out, ref axes, keepdims, ddof } => {
                (out, e.variance(get(x)?, axes.as_deref().unwrap_or(&[]), keepdims, ddof, true)?)
            }
            Instr::Argmax { x, out, axis, keepdims } => (out, e.arg_extreme(get(x)?, axis, keepdims, true)?),
            Instr::Argmin { x, out, axis, keepdims } => (out, e.arg_extreme(get(x)?, axis, keepdims, false)?),
            Instr::Cumsum { x, out, axis, reverse, inclusive } => (out, e.cumsum(get(x)?, axis, reverse, inclusive)?),
            Instr::Softmax { x, out, axis, precise } => (out, e.softmax(get(x)?, axis, precise)?),

            Instr::ExpandDims { x, out, axis } => (out, e.expand_dims(get(x)?, axis)?),
            Instr::Squeeze { x, out, ref dims } => (out, e.squeeze(get(x)?, dims.as_deref().unwrap_or(&[]))?),
            Instr::Reshape { x, out, ref shape } => (out, e.reshape(get(x)?, &self.ints(shape)?)?),
            Instr::Transpose { x, out, ref perm } => (out, e.transpose(get(x)?, perm)?),
            Instr::BroadcastTo { x, out, ref shape } => (out, e.broadcast_to(get(x)?, &self.ints(shape)?)?),
            Instr::AsStrided { x, out, ref shape, ref strides, offset } => {
                (out, e.as_strided(get(x)?, &self.ints(shape)?, &self.ints(strides)?, offset)?)
            }
            Instr::Tile { x, out, ref reps } => (out, e.tile(get(x)?, &self.ints(reps)?)?),
            Instr::Repeat { x, out, repeats, axis } => {
                let (x, repeats) = (get(x)?, self.int(repeats)?);
                bounded(e.shape(x).iter().map(|&n| n as i64).chain([repeats]), e.dtype(x))?;
                (out, e.repeat(x, repeats, axis)?)
            }
            Instr::Concatenate { ref tensors, out, axis } => (out, e.concatenate(&all(tensors)?, axis)?),
            Instr::Stack { ref tensors, out, axis } => (out, e.stack(&all(tensors)?, axis)?),
            Instr::Pad { x, out, ref pad_width, ref mode, constant_value } => {
                (out, e.pad(get(x)?, &self.ints(pad_width)?, mode, constant_value)?)
            }
            Instr::Roll { x, out, ref shift, ref axes } => (out, e.roll(get(x)?, &self.ints(shift)?, axes)?),
            Instr::Flip { x, out, ref axes } => (out, e.flip(get(x)?, axes)?),
            Instr::Slice { x, out, axis, start, stop, step } => {
                (out, e.slice(get(x)?, self.int(axis)?, self.int(start)?, self.int(stop)?, step)?)
            }

            Instr::Take { x, out, index, axis } => match index {
                IntOrVidOrTid::Int(n) => (out, e.take_at(get(x)?, self.int(IntOrVid::Int(n))?, axis)?),
                IntOrVidOrTid::Vid(vid) => (out, e.take_at(get(x)?, self.int_of(vid)?, axis)?),
                IntOrVidOrTid::Tid(tid) => (out, e.take(get(x)?, get(tid)?, axis)?),
            },
            Instr::TakeAlongAxis { x, indices, out, axis } => (out, e.take_along_axis(get(x)?, get(indices)?, axis)?),
            Instr::Gather { x, ref indices, out, ref axes, ref slice_sizes } => {
                bounded(slice_sizes.iter().map(|&n| n.into()), e.dtype(get(x)?))?;
                (out, e.gather(get(x)?, &all(indices)?, axes, slice_sizes)?)
            }
            Instr::ScatterAdd { x, indices, updates, out, axis } => (out, e.scatter_add(get(x)?, get(indices)?, get(updates)?, axis)?),

            Instr::Full { out, ref shape, v, scalar_type } => {
                let shape = self.ints(shape)?;
                bounded(shape.iter().copied(), scalar_type)?;
                (out, e.full(&shape, self.float(v)?, scalar_type)?)
            }
            Instr::FullLike { x, out, v, scalar_type } => {
                let x = get(x)?;
                let shape: Vec<i64> = e.shape(x).iter().map(|&n| n as i64).collect();
                (out, e.full(&shape, self.float(v)?, scalar_type.unwrap_or_else(|| e.dtype(x)))?)
            }
            Instr::ARange { out, start, stop, step, scalar_type } => {
                let (start, stop, step) = (self.int(start)?, self.int(stop)?, self.int(step)?);
                let dtype = scalar_type.unwrap_or(DType::Int32);
                // All three fit 32 bits.
                let span = (stop - start) * step.signum();
                if step != 0 {
                    bounded([span.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as i64], dtype)?;
                }
                (out, e.arange(start, stop, step, dtype)?)
            }
            Instr::Tri { out, n, m, k, scalar_type } => {
                let shape = [self.int(n)?, self.int(m)?];
                bounded(shape, scalar_type)?;
                let ones = e.full(&shape, 1.0, scalar_type)?;
                (out, e.triangle(&ones, k, false)?)
            }
            Instr::Tril { x, out, k } => (out, e.triangle(get(x)?, k, false)?),
            Instr::Triu { x, out, k } => (out, e.triangle(get(x)?, k, true)?),
            Instr::RandomBits { out, ref shape, seed, width } => {
                let seed = seed.map(|vid| self.int_of(vid)).transpose()?;
                let shape = self.ints(shape)?;
                bounded(shape.iter().copied(), DType::UInt8)?;
                (out, e.random_bits(&shape, seed, width)?)
            }

            Instr::Sort { x, out, axis } => (out, e.sort(get(x)?, axis)?),
            Instr::Argsort { x, out, axis } => (out, e.argsort(get(x)?, axis)?),
            Instr::Partition { x, out, kth, axis } => (out, e.partition(get(x)?, self.int(kth)?, axis)?),
            Instr::ArgPartition { x, out, kth, axis } => (out, e.arg_partition(get(x)?, self.int(kth)?, axis)?),

            Instr::Addmm { mat1, mat2, out, bias, alpha, beta } => (out, e.addmm(get(mat1)?, get(mat2)?, maybe(bias)?, alpha, beta)?),
            // Whether indices are sorted is a hint for speed that this interpreter has no use for.
            Instr::GatherMm { a, b, out, lhs_indices, rhs_indices, .. } => {
                (out, e.gather_mm(get(a)?, get(b)?, maybe(lhs_indices)?, maybe(rhs_indices)?)?)
            }
            Instr::QuantizedMatmul { x, w, scales, out, biases, group_size, bits, ref mode, transpose } => {
                let w = Quantized { w: get(w)?, scales: get(scales)?, biases: maybe(biases)?, group_size, bits, mode };
                (out, e.quantized_matmul(get(x)?, w, transpose)?)
            }
            Instr::GatherQmm { x, w, scales, out, ref mode, biases, lhs_indices, rhs_indices, transpose, group_size, bits, .. } => {
                let w = Quantized { w: get(w)?, scales: get(scales)?, biases: maybe(biases)?, group_size, bits, mode };
                (out, e.gather_qmm(get(x)?, w, maybe(lhs_indices)?, maybe(rhs_indices)?, transpose)?)
            }
            Instr::Dequantize { w, scales, out, biases, group_size, bits, ref mode, global_scale, dtype } => {
                let w = Quantized { w: get(w)?, scales: get(scales)?, biases: maybe(biases)?, group_size, bits, mode };
                (out, e.dequantize(w, maybe(global_scale)?, dtype)?)
            }

            Instr::RMSNorm { x, weight, out, eps } => (out, e.rms_norm(get(x)?, maybe(weight)?, eps)?),
            Instr::LayerNorm { x, out, weight, bias, eps } => (out, e.layer_norm(get(x)?, maybe(weight)?, maybe(bias)?, eps)?),
            Instr::Rope { x, out, dims, offset, freqs, traditional, base, scale } => {
                let offset = match offset {
                    VidOrTid::Vid(vid) => e.upload(&scalar_i32(self.int_of(vid)?)?)?,
                    VidOrTid::Tid(tid) => get(tid)?.clone(),
                };
                let how = Rope { dims, offset: &offset, freqs: maybe(freqs)?, traditional, base, scale };
                (out, e.rope(get(x)?, how)?)
            }
            Instr::Sdpa { q, k, v, out, scale, mask, causal } => (out, e.sdpa(get(q)?, get(k)?, get(v)?, scale, maybe(mask)?, causal)?),
            _ => return Err(Error::unsupported(format!("the interpreter does not know {}", instr.name()))),
        })
    }

    /// Shape and type of each result of a Metal kernel.
    fn kernel_results(&self, instr: &Instr) -> Result<Vec<(Vec<i64>, DType)>> {
        let Instr::MetalKernel { outputs, output_shapes_flat, output_shape_lengths, output_dtypes, .. } = instr else {
            return Ok(Vec::new());
        };
        let bad = || Error::argument("the shapes and types of a kernel's results do not fit their number");
        let flat = self.ints(output_shapes_flat.as_deref().unwrap_or_default())?;
        let lengths = output_shape_lengths.as_deref().unwrap_or_default();
        let types = output_dtypes.as_deref().unwrap_or_default();
        let mut rest = flat.as_slice();
        let mut results = Vec::with_capacity(types.len());
        for (&length, &dtype) in lengths.iter().zip(types) {
            let (shape, after) = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n)).ok_or_else(bad)?;
            results.push((shape.to_vec(), dtype));
            rest = after;
        }
        let whole = rest.is_empty() && lengths.len() == outputs.len() && types.len() == outputs.len();
        if whole { Ok(results) } else { Err(bad()) }
    }

    /// Convolutions of any number of axes, straight and transposed.
    fn convolution(&self, instr: &Instr) -> Result<Option<(Tid, E::Array)>> {
        let list = |values: &[i32]| values.iter().map(|&v| i64::from(v)).collect::<Vec<_>>();
        let conv = |stride: &[i32], padding: &[i32], dilation: &[i32], groups: i32| Conv {
            stride: list(stride),
            padding: list(padding),
            dilation: list(dilation),
            groups: i64::from(groups),
        };
        let (x, w, out, geometry, output_padding) = match *instr {
            Instr::Conv1D { x, w, out, stride, padding, dilation, groups } => {
                (x, w, out, conv(&[stride], &[padding], &[dilation], groups), None)
            }
            Instr::Conv2D { x, w, out, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups } => {
                (x, w, out, conv(&[stride_h, stride_w], &[padding_h, padding_w], &[dilation_h, dilation_w], groups), None)
            }
            Instr::Conv3D {
                x,
                w,
                out,
                stride_d,
                stride_h,
                stride_w,
                padding_d,
                padding_h,
                padding_w,
                dilation_d,
                dilation_h,
                dilation_w,
                groups,
            } => {
                let (stride, padding) = ([stride_d, stride_h, stride_w], [padding_d, padding_h, padding_w]);
                (x, w, out, conv(&stride, &padding, &[dilation_d, dilation_h, dilation_w], groups), None)
            }
            Instr::ConvTranspose1D { x, w, out, stride, padding, dilation, output_padding, groups } => {
                (x, w, out, conv(&[stride], &[padding], &[dilation], groups), Some(list(&[output_padding])))
            }
            Instr::ConvTranspose2D {
                x,
                w,
                out,
                stride_h,
                stride_w,
                padding_h,
                padding_w,
                dilation_h,
                dilation_w,
                output_padding_h,
                output_padding_w,
                groups,
            } => {
                let geometry = conv(&[stride_h, stride_w], &[padding_h, padding_w], &[dilation_h, dilation_w], groups);
                (x, w, out, geometry, Some(list(&[output_padding_h, output_padding_w])))
            }
            Instr::ConvTranspose3D {
                x,
                w,
                out,
                stride_d,
                stride_h,
                stride_w,
                padding_d,
                padding_h,
                padding_w,
                dilation_d,
                dilation_h,
                dilation_w,
                output_padding_d,
                output_padding_h,
                output_padding_w,
                groups,
            } => {
                let (stride, padding) = ([stride_d, stride_h, stride_w], [padding_d, padding_h, padding_w]);
                let geometry = conv(&stride, &padding, &[dilation_d, dilation_h, dilation_w], groups);
                (x, w, out, geometry, Some(list(&[output_padding_d, output_padding_h, output_padding_w])))
            }
            _ => return Ok(None),
        };
        let (x, w) = (self.get(x)?, self.get(w)?);
        let result = match output_padding {
            None => self.engine.conv(x, w, &geometry)?,
            Some(padding) => self.engine.conv_transpose(x, w, &geometry, &padding)?,
        };
        Ok(Some((out, result)))
    }

    /// The instructions that compute a scalar: in 64 bits, with an error if the result does not fit 32.
    fn scalar(&self, instr: &Instr) -> Result<Option<(Vid, i32)>> {
        let pair = |a, b| Ok::<_, Error>((self.int(a)?, self.int(b)?));
        let divisor = |b: i64| if b == 0 { Err(Error::range("division by zero")) } else { Ok(b) };
        // Operands fit 32 bits, so nothing here can overflow 64.
        let (out, value) = match *instr {
            Instr::AddInt { a, b, out } => (out, pair(a, b).map(|(a, b)| a + b)?),
            Instr::SubtractInt { a, b, out } => (out, pair(a, b).map(|(a, b)| a - b)?),
            Instr::MultiplyInt { a, b, out } => (out, pair(a, b).map(|(a, b)| a * b)?),
            Instr::FloorDivideInt { a, b, out } => {
                let (a, b) = (self.int(a)?, divisor(self.int(b)?)?);
                (out, (a - (a % b + b) % b) / b)
            }
            Instr::ModInt { a, b, out } => {
                let (a, b) = (self.int(a)?, divisor(self.int(b)?)?);
                (out, (a % b + b) % b)
            }
            Instr::SymSize { a, dim, out } => {
                let shape = self.engine.shape(self.get(a)?);
                let axis = crate::tensor::normalise_axis(i64::from(dim), shape.len())?;
                (out, shape.get(axis).copied().unwrap_or(0) as i64)
            }
            // The reference reads the first four bytes: the low half of a 64-bit integer.
            Instr::ItemInt { x, out } => return Ok(Some((out, self.engine.item_int(self.get(x)?)? as i32))),
            _ => return Ok(None),
        };
        let value = i32::try_from(value).map_err(|_| Error::range(format!("{value} does not fit 32 bits")))?;
        Ok(Some((out, value)))
    }

    fn truth(&self, cond: IntOrVid) -> Result<bool> {
        Ok(match cond {
            IntOrVid::Int(n) => n != 0,
            IntOrVid::Vid(vid) => match self.value(vid)? {
                Scalar::Int(n) => n != 0,
                Scalar::Float(x) => x != 0.0,
                Scalar::Bool(b) => b,
            },
        })
    }

    /// The first element of a tensor, as a tensor of one.
    fn first(&self, tid: Tid) -> Result<E::Array> {
        let flat = self.engine.reshape(self.get(tid)?, &[-1])?;
        self.engine.slice(&flat, 0, 0, 1, 1)
    }

    /// Lets `change` overwrite a part of `dst`, which becomes `out`. Where they are the same slot the array is taken
    /// out meanwhile, so that it has no second holder and changes in place; it goes back even if `change` fails.
    fn update(&mut self, dst: Tid, out: Tid, change: impl FnOnce(&E, &mut E::Array) -> Result<()>) -> Result<()> {
        let mut array = self.get(dst)?.clone();
        if dst == out
            && let Some(slot) = self.tensors.get_mut(dst.0 as usize)
        {
            *slot = None;
        }
        let result = change(&self.engine, &mut array);
        if dst == out || result.is_ok() {
            self.set(out, array)?;
        }
        result
    }

    /// Runs the body once for each index along the axis of the originals and stacks what it leaves in the outputs.
    fn scan(&mut self, originals: &[Tid], sliced: &[Tid], outputs: &[Tid], body: i32, axis: i32) -> Result<()> {
        let first = originals.first().ok_or_else(|| Error::argument("a scan over nothing"))?;
        let shape = self.engine.shape(self.get(*first)?);
        let steps = usize::try_from(axis).ok().and_then(|a| shape.get(a).copied());
        let steps = steps.ok_or_else(|| Error::range(format!("axis {axis} is out of range for shape {shape:?}")))?;
        if steps == 0 {
            return Err(Error::shape(format!("axis {axis} of {shape:?} has no steps to scan")));
        }
        let body = u32::try_from(body).map_err(|_| Error::range(format!("there is no chain {body}")))?;
        let mut collected: Vec<Vec<E::Array>> = vec![Vec::new(); outputs.len()];
        for step in 0..steps {
            limits::step(ROUND)?;
            // Read anew in every round: the body may have changed them.
            for (&to, &source) in sliced.iter().zip(originals) {
                let slice = self.engine.take_at(self.get(source)?, step as i64, axis)?;
                self.set(to, slice)?;
            }
            self.run_chain(body, false).map_err(|e| e.within(format!("step {step} of the scan")))?;
            for (list, &output) in collected.iter_mut().zip(outputs) {
                list.push(self.get(output)?.clone());
            }
        }
        for (list, &output) in collected.iter().zip(outputs) {
            let stacked = self.engine.stack(list, axis)?;
            self.set(output, stacked)?;
        }
        Ok(())
    }
}
