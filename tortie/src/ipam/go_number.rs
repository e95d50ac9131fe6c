//! Numbers as Go's `fmt` writes them.

/// `%.5g`: five digits that count, no zeros behind, and an exponent where there are more before the point.
pub(super) fn five_digits(number: f64) -> String {
    const DIGITS: usize = 5;
    if number == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{number:.*e}", DIGITS - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let shortened = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= DIGITS as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", shortened(mantissa), exponent.abs())
    } else {
        let decimals = (DIGITS as i32 - 1 - exponent).max(0) as usize;
        shortened(&format!("{number:.decimals$}"))
    }
}

/// `%.5g (%.f%%)`: a number, and how much of a whole it is; of nothing it is not a number, as in Go.
pub(super) fn part(number: u128, whole: u128) -> String {
    let number = number as f64;
    format!("{} ({:.0}%)", five_digits(number), 100.0 * number / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_five_digits_that_count() {
        for (number, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (64.0, "64"),
            (100.0, "100"),
            (65_531.0, "65531"),
            (65_536.0, "65536"),
            (100_000.0, "1e+05"),
            (131_072.0, "1.3107e+05"),
            (1_048_576.0, "1.0486e+06"),
            (2f64.powi(80), "1.2089e+24"),
        ] {
            assert_eq!(five_digits(number), text);
        }
    }

    #[test]
    fn parts_are_rounded_to_even() {
        assert_eq!(part(5, 65_536), "5 (0%)");
        assert_eq!(part(65_531, 65_536), "65531 (100%)");
        assert_eq!(part(3, 8), "3 (38%)");
        assert_eq!(part(5, 8), "5 (62%)");
        assert_eq!(part(1, 8), "1 (12%)");
    }
}
