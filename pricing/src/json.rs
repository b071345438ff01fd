//! JSON as text: a tree in which a number is still the characters it was written with, so that no float ever stands
//! between a sender and an exact amount (MONEY-1).
//!
//! Limits: 32 levels; a key stands once in an object, since a second value for it would be picked at random.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

const LEVELS_MAX: usize = 32;

/// One JSON value that borrows from its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'t> {
    Null,
    Bool(bool),
    /// As written: `1200`, `4.2e-07`.
    Number(&'t str),
    Text(Cow<'t, str>),
    Array(Vec<Json<'t>>),
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

impl<'t> Json<'t> {
    /// # Errors
    /// Text that is not one JSON value, with serde's own words.
    pub(crate) fn parse(text: &'t str) -> Result<Json<'t>, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Json::read(raw, 0)
    }

    fn read(raw: &'t RawValue, level: usize) -> Result<Json<'t>, String> {
        if level > LEVELS_MAX {
            return Err(format!("more than {LEVELS_MAX} levels of arrays and objects"));
        }
        let text = raw.get();
        let whole = |error: serde_json::Error| error.to_string();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let mut members = Vec::new();
                let Members(raw_members) = serde_json::from_str(text).map_err(whole)?;
                for (key, value) in raw_members {
                    if members.iter().any(|(other, _)| *other == key) && members.len() < 256 {
                        return Err(format!("the key `{key}` stands twice in one object"));
                    }
                    members.push((key, Json::read(value, level + 1)?));
                }
                Json::Object(members)
            }
            Some(b'[') => {
                let Elements(elements) = serde_json::from_str(text).map_err(whole)?;
                let elements = elements.into_iter().map(|element| Json::read(element, level + 1));
                Json::Array(elements.collect::<Result<_, _>>()?)
            }
            Some(b'"') => Json::Text(Plain::read(text).map_err(whole)?),
            Some(b't') => Json::Bool(true),
            Some(b'f') => Json::Bool(false),
            Some(b'n') => Json::Null,
            _ => Json::Number(text),
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Json<'t>> {
        self.members().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The members of an object; none for any other value.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Json<'t>)> {
        let members = match self {
            Json::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().map(|(key, value)| (&**key, value))
    }

    /// The elements of an array; none for any other value.
    pub(crate) fn elements(&self) -> &[Json<'t>] {
        match self {
            Json::Array(elements) => elements,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<&'t str> {
        match self {
            Json::Number(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }
}

impl fmt::Display for Json<'_> {
    /// Compact JSON; strings are quoted by the rules of Rust, which is enough for a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(text) => f.write_str(text),
            Json::Text(text) => write!(f, "{text:?}"),
            Json::Array(elements) => {
                f.write_str("[")?;
                for (position, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if position == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Json::Object(members) => {
                f.write_str("{")?;
                for (position, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{key:?}:{value}", if position == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

struct Members<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key_seed(Plain)? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Elements<'t>(Vec<&'t RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

/// A string that is copied only where it has escapes.
struct Plain;

impl Plain {
    fn read(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
        Plain.deserialize(&mut serde_json::Deserializer::from_str(text))
    }
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_characters_they_were_written_with() {
        let json = Json::parse(r#"{"a": [4.0000000000000003e-07, -1, 1E5], "b\n": "é"}"#).unwrap();
        let numbers: Vec<_> = json.get("a").unwrap().elements().iter().map(Json::number).collect();
        assert_eq!(numbers, [Some("4.0000000000000003e-07"), Some("-1"), Some("1E5")]);
        assert_eq!(json.get("b\n").and_then(Json::text), Some("é"));
        assert_eq!(json.to_string(), r#"{"a":[4.0000000000000003e-07,-1,1E5],"b\n":"é"}"#);
    }

    #[test]
    fn repeated_keys_depth_and_broken_text_are_refused() {
        assert!(Json::parse(r#"{"a":1,"b":{"c":1,"c":2}}"#).unwrap_err().contains("`c`"));
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert!(Json::parse(&deep).unwrap_err().contains("32 levels"));
        for text in ["", "{", "{\"a\":}", "1 2", "nul"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
