//! A text that must not be repeated in an error of serde's or of a format's, some of which quote the line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// A text or a whole number, or something else in its place, which is not an error before it is used.
#[derive(Clone)]
pub(super) struct Secret(Option<Zeroizing<String>>);

impl Secret {
    pub(super) fn new(text: String) -> Secret {
        Secret(Some(Zeroizing::new(text)))
    }

    /// `None` if it is not a text.
    pub(super) fn expose(&self) -> Option<&str> {
        self.0.as_ref().map(|text| text.as_str())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Accepts every kind of value. Some formats and the crate `config` read digits as a number, which is the text again;
/// but a float is not.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Secret, E> {
        Ok(Secret::new(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Secret, E> {
        Ok(Secret::new(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Secret, E> {
        Ok(Secret::new(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Secret, E> {
        Ok(Secret::new(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Secret, E> {
        Ok(Secret::new(value.to_string()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Secret, E> {
        Ok(Secret(None))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Secret, E> {
        Ok(Secret(None))
    }

    fn visit_unit<E>(self) -> Result<Secret, E> {
        Ok(Secret(None))
    }

    fn visit_none<E>(self) -> Result<Secret, E> {
        Ok(Secret(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Secret, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Secret(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Secret(None))
    }
}
