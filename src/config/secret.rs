//! Values that must not be repeated in an error of serde's or of a format's, some of which quote the line.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// A text or a whole number, or something else in its place, which is not an error before it is used.
#[derive(Clone)]
pub(super) struct Secret(Option<Zeroizing<String>>);

impl Secret {
    pub(super) fn new(text: String) -> Secret {
        Secret(Some(Zeroizing::new(text)))
    }

    /// Something else in the place of a text.
    pub(super) fn not_text() -> Secret {
        Secret(None)
    }

    /// `None` if it is not a text.
    pub(super) fn expose(&self) -> Option<&str> {
        self.0.as_ref().map(|text| text.as_str())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Ok(match Value::<IgnoredAny>::read(deserializer)? {
            Value::Text(secret) => secret,
            Value::Table(_) | Value::Other => Secret::not_text(),
        })
    }
}

/// What stands in a setting, whatever is expected there.
pub(super) enum Value<T> {
    /// A text or a whole number. Some formats and the crate `config` read digits as a number, which is the text again;
    /// but a float is not.
    Text(Secret),
    Table(T),
    Other,
}

impl<T> Value<T> {
    /// Fails only if there is a table that is not `T`, or if the format is violated.
    pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value<T>, D::Error>
    where
        T: Deserialize<'de>,
    {
        deserializer.deserialize_any(AnyValue(PhantomData))
    }

    pub(super) fn table(self) -> Option<T> {
        match self {
            Value::Table(table) => Some(table),
            Value::Text(_) | Value::Other => None,
        }
    }
}

/// Accepts every kind of value.
struct AnyValue<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyValue<T> {
    type Value = Value<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a table")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(text)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(value.to_string())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(value.to_string())))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value<T>, E> {
        Ok(Value::Text(Secret::new(value.to_string())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<T>, E> {
        Ok(Value::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Value<T>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<T>, E> {
        Ok(Value::Other)
    }

    fn visit_none<E>(self) -> Result<Value<T>, E> {
        Ok(Value::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value<T>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value<T>, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Value::Table)
    }
}
