//! The products of Klavi's API.

use std::{fmt, str::FromStr};

use crate::error::config::ConfigError;

/// A product of Klavi. Each has a path prefix and access tokens of its own.
///
/// Parsing and [`Display`](fmt::Display) use the path prefix. Parse it for a product that has no
/// variant yet:
///
/// ```
/// use klavi_auth::Product;
///
/// assert_eq!("payment/customer".parse(), Ok(Product::PaymentCustomer));
/// assert_eq!(Product::Data.to_string(), "data");
///
/// let product: Product = "insurance/claims".parse()?;
/// assert_eq!(product.as_str(), "insurance/claims");
/// assert!("/insurance/".parse::<Product>().is_err());
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Product {
    /// Klavi Monitor, `/monitor/v1/…`.
    Monitor,
    /// Klavi Link and open-finance data, `/data/v1/…`.
    Data,
    /// Klavi Payment, the customer API: `/payment/customer/v1/…`.
    PaymentCustomer,
    /// Klavi Payment, the management API: `/payment/management/v1/…`. It has other keys than the
    /// customer API.
    PaymentManagement,
    /// Any other product, by its path. Only parsing makes it, since that checks the path:
    ///
    /// ```compile_fail
    /// let unchecked = klavi_auth::Product::Other("../data".into());
    /// ```
    #[non_exhaustive]
    Other(String),
}

/// The maximum number of segments of a product path.
// A documented product has two at most.
const MAX_SEGMENTS: usize = 3;

impl Product {
    /// The path, such as `monitor` or `payment/customer`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Monitor => "monitor",
            Self::Data => "data",
            Self::PaymentCustomer => "payment/customer",
            Self::PaymentManagement => "payment/management",
            Self::Other(path) => path,
        }
    }
}

/// The product with this path: one to three segments of letters, digits, `-`, `_` and `.`, without
/// a slash at either end. The path of a known product gives its variant.
impl FromStr for Product {
    type Err = ConfigError;

    /// # Errors
    ///
    /// [`ConfigError::InvalidProduct`] for any other path.
    fn from_str(path: &str) -> Result<Self, ConfigError> {
        Ok(match path {
            "monitor" => Self::Monitor,
            "data" => Self::Data,
            "payment/customer" => Self::PaymentCustomer,
            "payment/management" => Self::PaymentManagement,
            _ => match problem_with(path) {
                Some(problem) => return Err(ConfigError::InvalidProduct(problem.into())),
                None => Self::Other(path.to_owned()),
            },
        })
    }
}

/// Why a path is invalid. Shows at most one character of it, since it may be a secret by mistake.
fn problem_with(path: &str) -> Option<String> {
    let count = path.split('/').count();
    if count > MAX_SEGMENTS {
        return Some(format!(
            "it has {count} segments, and {MAX_SEGMENTS} are possible"
        ));
    }
    path.split('/').zip(1..).find_map(|(segment, number)| {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if segment.is_empty() {
            return Some(format!("segment {number} of {count} is empty"));
        }
        if let Some(illegal) = segment.chars().find(|c| !is_legal(*c)) {
            return Some(format!(
                "segment {number} of {count} has the character {illegal:?}"
            ));
        }
        // Servers resolve `.` and `..`, so the path would be another product's.
        let is_dots = segment.bytes().all(|byte| byte == b'.');
        is_dots.then(|| format!("segment {number} of {count} has only dots"))
    })
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_path_of_a_known_product_gives_its_variant() {
        let known = [
            ("monitor", Product::Monitor),
            ("data", Product::Data),
            ("payment/customer", Product::PaymentCustomer),
            ("payment/management", Product::PaymentManagement),
        ];
        for (path, product) in known {
            assert_eq!(path.parse(), Ok(product.clone()));
            assert_eq!(product.to_string(), path);
            assert_eq!(HashSet::from([product, path.parse().unwrap()]).len(), 1);
        }
    }

    #[test]
    fn a_product_has_one_to_three_segments() {
        for path in [
            "payments.v2",
            "a/b",
            "A-1/b_2/c.3",
            "monitor/x",
            "payment",
            "...a",
            "v1",
        ] {
            let product: Product = path.parse().unwrap();
            assert!(matches!(product, Product::Other(_)), "{path}");
            assert_eq!(
                (product.as_str(), product.to_string()),
                (path, path.to_owned())
            );
        }
    }

    #[test]
    fn any_other_path_is_a_config_error_with_the_reason() {
        for (path, why) in [
            ("", "segment 1 of 1 is empty"),
            ("/", "segment 1 of 2 is empty"),
            ("/monitor", "segment 1 of 2 is empty"),
            ("monitor/", "segment 2 of 2 is empty"),
            ("a//b", "segment 2 of 3 is empty"),
            ("a/b/c/d", "it has 4 segments"),
            (".", "segment 1 of 1 has only dots"),
            ("a/..", "segment 2 of 2 has only dots"),
            ("a b", "segment 1 of 1 has the character ' '"),
            ("a/ä", "segment 2 of 2 has the character 'ä'"),
            ("a?b", "has the character '?'"),
            ("a#b", "has the character '#'"),
            ("%2e", "has the character '%'"),
            ("a\\b", "has the character '\\\\'"),
        ] {
            let error = path.parse::<Product>().unwrap_err();
            assert!(matches!(error, ConfigError::InvalidProduct(_)));
            assert!(error.to_string().contains(why), "{path}: {error}");
        }
    }
}
