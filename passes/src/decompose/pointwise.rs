//! Functions of single elements.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr, Func};

use super::expr::{Ex, of_one, of_two};
use super::pen::Pen;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

fn number(site: &Site<'_>, name: &str) -> Option<f64> {
    site.arg(name).as_float()
}

fn of_floats(site: &Site<'_>) -> bool {
    site.operand(0).is_some_and(|t| t.dtype.is_float())
}

/// `|x| <= lambda ? 0 : x`. Source: torch.nn.Hardshrink.
pub(super) fn hardshrink(site: &mut Site<'_>) -> Result {
    let Some(limit) = number(site, "lambd") else { return Ok(None) };
    of_one(site, |x| x.abs().le(limit).then(0.0, x))
}

/// `x` moved towards 0 by lambda, which stops there. Source: torch.nn.Softshrink.
pub(super) fn softshrink(site: &mut Site<'_>) -> Result {
    let Some(limit) = number(site, "lambd") else { return Ok(None) };
    of_one(site, |x| x.gt(limit).then(&x - limit, x.lt(-limit).then(&x + limit, &x * 0.0)))
}

/// `x > 0 ? x : slope * x` with the mean slope. Source: torch.nn.RReLU outside training.
pub(super) fn rrelu(site: &mut Site<'_>) -> Result {
    let (Some(low), Some(high)) = (number(site, "lower"), number(site, "upper")) else { return Ok(None) };
    if site.arg("training").as_bool() != Some(false) {
        return Ok(None);
    }
    of_one(site, |x| x.gt(0i64).then(&x, &x * ((low + high) / 2.0)))
}

/// Source: torch.frac.
pub(super) fn frac(site: &mut Site<'_>) -> Result {
    of_one(site, |x| &x - x.trunc())
}

/// `2ˣ`. Source: torch.exp2.
pub(super) fn exp2(site: &mut Site<'_>) -> Result {
    of_one(site, |x| x.power_of(2.0))
}

/// `e^(x²) · erfc(x)` for `x >= 0`. Source: the Chebyshev fit of Numerical Recipes, section 6.2, relative error below 1.2e-7.
fn scaled_tail(x: &Ex) -> Ex {
    let t = (x * 0.5 + 1.0).reciprocal();
    let fit = t.polynomial(&[
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ]);
    &t * fit.exp()
}

/// `1 - erf(x)`, right of 0.5 without losing all digits.
fn complement(x: &Ex) -> Ex {
    let size = x.abs();
    x.le(0.5).then(-x.erf() + 1.0, scaled_tail(&size) * (-size.square()).exp())
}

/// `1 - erf(x)`. Source: torch.special.erfc.
pub(super) fn erfc(site: &mut Site<'_>) -> Result {
    of_one(site, |x| complement(&x))
}

/// `e^(x²) · erfc(x)`. Source: torch.special.erfcx.
pub(super) fn erfcx(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let tail = scaled_tail(&x.abs());
        x.lt(0i64).then(x.square().exp() * 2.0 - &tail, tail)
    })
}

/// Area below the normal curve. Source: torch.special.ndtr.
pub(super) fn ndtr(site: &mut Site<'_>) -> Result {
    of_one(site, |x| complement(&(x * -FRAC_1_SQRT_2)) * 0.5)
}

/// Its logarithm. Source: torch.special.log_ndtr.
pub(super) fn log_ndtr(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let left = (scaled_tail(&(x.abs() * FRAC_1_SQRT_2)) * 0.5).log() - x.square() * 0.5;
        x.lt(-1i64).then(left, (complement(&(&x * FRAC_1_SQRT_2)) * -0.5).log1p())
    })
}

/// Source: M. Giles, "Approximating the erfinv function", the fit for single precision.
pub(super) fn erfinv(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let w = -((-&x + 1.0) * (&x + 1.0)).log();
        let near = (&w - 2.5).polynomial(&[
            2.810_226_36e-8,
            3.432_739_39e-7,
            -3.523_387_7e-6,
            -4.391_506_54e-6,
            0.000_218_580_87,
            -0.001_253_725_03,
            -0.004_177_681_64,
            0.246_640_727,
            1.501_409_41,
        ]);
        let far = (w.sqrt() - 3.0).polynomial(&[
            -0.000_200_214_257,
            0.000_100_950_558,
            0.001_349_343_22,
            -0.003_673_428_44,
            0.005_739_507_73,
            -0.007_622_461_3,
            0.009_438_870_47,
            1.001_674_06,
            2.832_976_82,
        ]);
        x.abs().eq(1i64).then(&x * f64::INFINITY, w.lt(5.0).then(near, far) * &x)
    })
}

/// Up to 3.75 a polynomial in `(x / 3.75)²`, beyond it `1/√|x|` times one in `3.75 / |x|`, both times `e^-|x|`. Source: Abramowitz and
/// Stegun, Handbook of Mathematical Functions, 9.8.1 to 9.8.4; relative error below 6e-7.
fn bessel(x: &Ex, near: &[f64], far: &[f64]) -> (Ex, Ex) {
    let size = x.abs();
    let t = &size * (1.0 / 3.75);
    let outside = t.at_least(1.0).reciprocal().polynomial(far) / size.at_least(3.75).sqrt();
    (t.square().polynomial(near), outside)
}

/// Order 0, near and far.
fn bessel_0(x: &Ex) -> (Ex, Ex) {
    bessel(
        x,
        &[0.004_581_3, 0.036_076_8, 0.265_973_2, 1.206_749_2, 3.089_942_4, 3.515_622_9, 1.0],
        &[0.003_923_77, -0.016_476_33, 0.026_355_37, -0.020_577_06, 0.009_162_81, -0.001_575_65, 0.002_253_19, 0.013_285_92, 0.398_942_28],
    )
}

/// Order 1, near over `x`, and far of its size.
fn bessel_1(x: &Ex) -> (Ex, Ex) {
    bessel(
        x,
        &[0.000_324_11, 0.003_015_32, 0.026_587_33, 0.150_849_34, 0.514_988_69, 0.878_905_94, 0.5],
        &[
            -0.004_200_59,
            0.017_876_54,
            -0.028_953_12,
            0.022_829_67,
            -0.010_315_55,
            0.001_638_01,
            -0.003_620_18,
            -0.039_880_24,
            0.398_942_28,
        ],
    )
}

/// The modified Bessel function of order 0. Source: torch.special.i0.
pub(super) fn i0(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let (near, far) = bessel_0(&x);
        x.abs().le(3.75).then(near, x.abs().exp() * far)
    })
}

/// The same times `e^-|x|`. Source: torch.special.i0e.
pub(super) fn i0e(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let (near, far) = bessel_0(&x);
        x.abs().le(3.75).then(near * (-x.abs()).exp(), far)
    })
}

/// The modified Bessel function of order 1. Source: torch.special.i1.
pub(super) fn i1(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let (near, far) = bessel_1(&x);
        x.abs().le(3.75).then(near * &x, x.abs().exp() * far * x.sign())
    })
}

/// The same times `e^-|x|`. Source: torch.special.i1e.
pub(super) fn i1e(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let (near, far) = bessel_1(&x);
        x.abs().le(3.75).then(near * &x * (-x.abs()).exp(), far * x.sign())
    })
}

/// The result in the type of the tensor that is given for it. Source: torch.atan2 with `out`.
pub(super) fn into_out(site: &mut Site<'_>) -> Result {
    let outputs = site.node().outputs.len();
    let Some(out) = site.tensor(site.arg("out")).cloned() else { return Ok(None) };
    let (a, b) = (site.nth(0).clone(), site.nth(1).clone());
    let mut p = Pen(site);
    let y = p.call(op!("aten.atan2.default"), vec![a, b])?;
    if p.ty(&y)?.shape != out.shape {
        return Ok(None);
    }
    let y = p.cast(&y, out.dtype)?;
    Ok(Some(Patch::Values(vec![y; outputs])))
}

/// Source: torch.deg2rad.
pub(super) fn deg2rad(site: &mut Site<'_>) -> Result {
    of_one(site, |x| x * (PI / 180.0))
}

/// Source: torch.rad2deg.
pub(super) fn rad2deg(site: &mut Site<'_>) -> Result {
    of_one(site, |x| x * (180.0 / PI))
}

/// Source: torch.isfinite.
pub(super) fn isfinite(site: &mut Site<'_>) -> Result {
    let float = of_floats(site);
    of_one(site, |x| if float { x.abs().lt(f64::INFINITY) } else { x.eq(&x) })
}

/// Source: torch.isposinf.
pub(super) fn isposinf(site: &mut Site<'_>) -> Result {
    is(site, f64::INFINITY)
}

/// Source: torch.isneginf.
pub(super) fn isneginf(site: &mut Site<'_>) -> Result {
    is(site, f64::NEG_INFINITY)
}

fn is(site: &mut Site<'_>, value: f64) -> Result {
    let float = of_floats(site);
    of_one(site, |x| if float { x.eq(value) } else { x.ne(&x) })
}

/// Every number here is real. Source: torch.isreal.
pub(super) fn isreal(site: &mut Site<'_>) -> Result {
    if site.operand(0).is_none_or(|t| t.dtype.is_complex()) {
        return Ok(None);
    }
    of_one(site, |x| x.eq(&x).or(x.is_nan()))
}

/// Source: torch.sgn of real numbers.
pub(super) fn sgn(site: &mut Site<'_>) -> Result {
    if site.operand(0).is_none_or(|t| t.dtype.is_complex()) {
        return Ok(None);
    }
    of_one(site, |x| x.sign())
}

/// Negative zero counts: its reciprocal is less than nothing.
fn negative(x: &Ex, float: bool) -> Ex {
    if float { x.lt(0i64).or(x.reciprocal().lt(0i64)) } else { x.lt(0i64) }
}

/// Source: torch.signbit.
pub(super) fn signbit(site: &mut Site<'_>) -> Result {
    let float = of_floats(site);
    of_one(site, |x| negative(&x, float))
}

/// Source: torch.copysign.
pub(super) fn copysign(site: &mut Site<'_>) -> Result {
    if let Some(sign) = number(site, "other") {
        return of_one(site, |x| if sign.is_sign_negative() { -x.abs() } else { x.abs() });
    }
    of_two(site, |x, y| negative(&y, true).then(-x.abs(), x.abs()))
}

/// `sin(πx) / πx`. Source: torch.sinc.
pub(super) fn sinc(site: &mut Site<'_>) -> Result {
    of_one(site, |x| {
        let angle = &x * PI;
        x.eq(0i64).then(1.0, angle.sin() / &angle)
    })
}

/// `log(x / (1 - x))`. Source: torch.logit.
pub(super) fn logit(site: &mut Site<'_>) -> Result {
    let eps = number(site, "eps");
    of_one(site, |x| {
        let x = eps.map_or(x.clone(), |e| x.clamp(e, 1.0 - e));
        (&x / (-&x + 1.0)).log()
    })
}

/// Source: torch.nan_to_num.
pub(super) fn nan_to_num(site: &mut Site<'_>) -> Result {
    let Some(dtype) = site.result().map(|t| t.dtype) else { return Ok(None) };
    let x = site.nth(0).clone();
    let largest = match dtype {
        DType::Float16 => 65504.0,
        DType::BFloat16 => 3.389_531_389_251_535_5e38,
        DType::Float32 => f64::from(f32::MAX),
        t if t.is_float() => return Ok(None),
        _ => return Ok(Some(Patch::Values(vec![x]))),
    };
    let [nan, high, low] =
        [("nan", 0.0), ("posinf", largest), ("neginf", -largest)].map(|(name, default)| number(site, name).unwrap_or(default));
    let x = Ex::from(x);
    let finite = x.eq(f64::INFINITY).then(high, x.eq(f64::NEG_INFINITY).then(low, &x));
    Pen(site).ends(&x.is_nan().then(nan, finite))
}

/// Source: torch.heaviside.
pub(super) fn heaviside(site: &mut Site<'_>) -> Result {
    let Some(dtype) = site.result().map(|t| t.dtype) else { return Ok(None) };
    of_two(site, |x, y| x.eq(0i64).then(y, x.gt(0i64).cast(dtype)))
}

/// The larger side times the root of one plus the square of their ratio. Source: torch.hypot.
pub(super) fn hypot(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| {
        let (x, y) = (x.abs(), y.abs());
        let (long, short) = (x.max(&y), x.min(&y));
        let root = ((&short / &long).square() + 1.0).sqrt();
        // Beside an infinite side nothing else counts, not even NaN.
        let infinite = x.eq(f64::INFINITY).or(y.eq(f64::INFINITY));
        infinite.then(f64::INFINITY, long.eq(0i64).then(&long, &long * root))
    })
}

/// `x · 2ʸ`. Source: torch.ldexp.
pub(super) fn ldexp(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| x * y.power_of(2.0))
}

/// `log2(2ˣ + 2ʸ)` around the larger. Source: torch.logaddexp2.
pub(super) fn logaddexp2(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| {
        let (large, apart) = (x.max(&y), (&x - &y).abs());
        let more = (apart * -LN_2).exp().log1p() * LN_2.recip();
        &large + x.eq(&y).then(1.0, more)
    })
}

/// `x · log(y)`, nothing where `x` is. Source: torch.xlogy.
pub(super) fn xlogy(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| product(&x, &y, |y| Ex::call(op!("aten.log.default"), vec![y])))
}

/// `x · log(1 + y)`, nothing where `x` is. Source: torch.special.xlog1py.
pub(super) fn xlog1py(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| product(&x, &y, |y| Ex::call(op!("aten.log1p.default"), vec![y])))
}

fn product(x: &Ex, y: &Ex, log: impl FnOnce(Ex) -> Ex) -> Ex {
    x.eq(0i64).then(y.is_nan().then(y, 0.0), x * log(y.clone()))
}

/// `-x · log(x)`. Source: torch.special.entr.
pub(super) fn entr(site: &mut Site<'_>) -> Result {
    of_one(site, |x| x.eq(0i64).then(0.0, x.lt(0i64).then(f64::NEG_INFINITY, -(&x * x.log()))))
}

/// The larger; a number rather than NaN. Source: torch.fmax.
pub(super) fn fmax(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| x.is_nan().then(&y, y.is_nan().then(&x, x.max(&y))))
}

/// The smaller; a number rather than NaN. Source: torch.fmin.
pub(super) fn fmin(site: &mut Site<'_>) -> Result {
    of_two(site, |x, y| x.is_nan().then(&y, y.is_nan().then(&x, x.min(&y))))
}

/// The remainder with the sign of the dividend: that of the sizes is exact. Source: torch.fmod.
pub(super) fn fmod(site: &mut Site<'_>) -> Result {
    let Some(dtype) = site.result().map(|t| t.dtype) else { return Ok(None) };
    let unsigned = !dtype.is_float() && !matches!(dtype, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let by = match site.nth(1) {
        Arg::Int(n) => Some(Arg::Int(n.saturating_abs())),
        Arg::Float(n) => Some(Arg::Float(n.abs())),
        Arg::Value(v) => match site.graph().ty(*v) {
            Type::Int(e) => {
                let (zero, negative) = (Expr::Int(0), e.times(&Expr::Int(-1)));
                let amount = match (site.ranges().at_most(&zero, e), site.ranges().at_most(e, &zero)) {
                    (Some(true), _) => e.clone(),
                    (_, Some(true)) => negative,
                    _ => Expr::call(Func::Max, vec![e.clone(), negative]),
                };
                let Some(amount) = site.size(&amount) else { return Ok(None) };
                Some(amount)
            }
            Type::Tensor(_) => None,
            _ => return Ok(None),
        },
        _ => None,
    };
    of_two(site, |x, y| {
        if unsigned {
            return x.remainder(y);
        }
        let rest = x.abs().remainder(by.map_or_else(|| y.abs(), Ex::from));
        x.lt(0i64).then(-&rest, &rest)
    })
}

/// `x == y`, or as near as both tolerances together. Source: torch.isclose.
pub(super) fn isclose(site: &mut Site<'_>) -> Result {
    let (Some(rtol), Some(atol)) = (number(site, "rtol"), number(site, "atol")) else { return Ok(None) };
    let nan_too = site.arg("equal_nan").as_bool() == Some(true);
    let Some(dtype) = site.operand(0).map(|t| t.dtype) else { return Ok(None) };
    let wide = if dtype.is_float() { dtype } else { DType::Float32 };
    of_two(site, |x, y| {
        let mut same = x.eq(&y);
        if nan_too && dtype.is_float() {
            same = same.or(x.is_nan().and(y.is_nan()));
        }
        if rtol == 0.0 && atol == 0.0 {
            return same;
        }
        let (x, y) = (x.cast(wide), y.cast(wide));
        let apart = (&x - &y).abs();
        let allowed = (&y * rtol).abs() + atol;
        same.or(apart.lt(f64::INFINITY).and(apart.le(allowed)))
    })
}

/// `x · 2ⁿ`. Source: torch.bitwise_left_shift.
pub(super) fn shift_left(site: &mut Site<'_>) -> Result {
    let by = power_of_two(site);
    of_two(site, |x, y| x * by.unwrap_or_else(|| Ex::call(op!("aten.pow.Scalar"), vec![2i64.into(), y])))
}

/// `x / 2ⁿ`, rounded down. Source: torch.bitwise_right_shift.
pub(super) fn shift_right(site: &mut Site<'_>) -> Result {
    let by = power_of_two(site);
    of_two(site, |x, y| {
        Ex::call(
            op!("aten.div.Tensor_mode"),
            vec![x, by.unwrap_or_else(|| Ex::call(op!("aten.pow.Scalar"), vec![2i64.into(), y])), Arg::from("floor").into()],
        )
    })
}

fn power_of_two(site: &Site<'_>) -> Option<Ex> {
    let n = site.nth(1).as_int()?;
    (0..63).contains(&n).then(|| Ex::from(1i64 << n))
}

/// Rounded to steps of `scale` within limits. Source: torch.fake_quantize_per_tensor_affine.
pub(super) fn fake_quantize(site: &mut Site<'_>) -> Result {
    let [Some(scale), Some(zero), Some(min), Some(max)] = ["scale", "zero_point", "quant_min", "quant_max"].map(|n| number(site, n)) else {
        return Ok(None);
    };
    // As torch: the reciprocal in single precision.
    let inverse = f64::from(1.0 / scale as f32);
    of_one(site, |x| (((x * inverse).round() + zero).clamp(min, max) - zero) * scale)
}

/// The same with a scale a channel. Source: torch.fake_quantize_per_channel_affine.
pub(super) fn fake_quantize_channels(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(min), Some(max)) = (site.operand(0).cloned(), number(site, "quant_min"), number(site, "quant_max")) else {
        return Ok(None);
    };
    let Some(axis) = site.arg("axis").as_int().and_then(|d| crate::calls::wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let shape: Vec<Dim> =
        (0..t.rank()).map(|d| if d == axis { t.shape.get(d).cloned().unwrap_or(Dim::Int(1)) } else { Dim::Int(1) }).collect();
    let x = p.operand(0)?;
    let (scale, zero) = (p.0.arg("scale").clone(), p.0.arg("zero_point").clone());
    let zero = p.cast(&zero, DType::Float32)?;
    let (Some(scale), Some(zero)) = (p.view(&scale, &shape)?, p.view(&zero, &shape)?) else { return Ok(None) };
    let (scale, zero) = (Ex::from(scale), Ex::from(zero));
    p.ends(&((((x * scale.reciprocal()).round() + &zero).clamp(min, max) - &zero) * &scale))
}
