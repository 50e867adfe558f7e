//! The JSON Schema of the file format, generated from the types that parse it and adapted for editors.
//!
//! Editors only look at the property itself. If just the branches state a type, yaml-language-server completes a key
//! without its colon; a branch without a title has no label; and line breaks in descriptions are displayed as they
//! are. So references are inlined, and every property, item, and branch gets a type and a title.

use serde_json::{Map, Value as Json, json};

use super::raw::RawConfig;

/// The identifier of the schema. It is a name rather than a URL because `hostgw schema` prints it offline.
const ID: &str = "urn:hostgw:schema:config:1";

/// The JSON Schema of a configuration.
#[must_use]
pub fn schema() -> Json {
    let mut generated = schemars::schema_for!(RawConfig).to_value();
    let definitions = generated.as_object_mut().and_then(|root| root.remove("$defs")).unwrap_or_default();
    let mut schema = annotated(&generated, &definitions, "");
    schema["$id"] = ID.into();
    schema
}

/// The JSON Schema as in `schemas/config.schema.json`, without the trailing newline.
#[must_use]
pub fn schema_text() -> String {
    format!("{:#}", schema())
}

/// Adds everything that editors need to a schema. `title` is the default title. The types are not recursive.
fn annotated(schema: &Json, definitions: &Json, title: &str) -> Json {
    let mut all = resolved(schema, definitions);
    if let Some(Json::String(text)) = all.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let title = all.get("title").and_then(Json::as_str).unwrap_or(title).to_owned();
    if let Some(Json::Object(properties)) = all.get_mut("properties") {
        for (key, property) in properties {
            *property = annotated(property, definitions, &title_of(key));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = all.get_mut(key).filter(|inner| inner.is_object()) {
            *inner = annotated(inner, definitions, singular(&title));
        }
    }
    if let Some((key, branches)) = branches(&all, definitions) {
        let is_narrowing = all.contains_key("properties");
        let branches = branches.into_iter().map(|branch| {
            let name = branch_title(&branch).unwrap_or_else(|| title.clone());
            let mut branch = annotated(&branch, definitions, &name);
            if is_narrowing {
                branch["type"] = "object".into();
            }
            branch
        });
        all.insert(key.to_owned(), branches.collect());
    }
    let kind = types(&all);
    all.insert("type".to_owned(), kind);
    all.insert("title".to_owned(), title.into());
    all.into()
}

/// Replaces the reference in a schema with its target. Keys next to the reference take precedence.
fn resolved(schema: &Json, definitions: &Json) -> Map<String, Json> {
    let mut all = schema.as_object().cloned().unwrap_or_default();
    let target = all.remove("$ref");
    let name = target.as_ref().and_then(Json::as_str).and_then(|target| target.rsplit('/').next());
    for (key, value) in name.and_then(|name| definitions[name].as_object()).into_iter().flatten() {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    // Flatten "something or null" into a nullable something.
    if let Some(Json::Array(branches)) = all.get("anyOf")
        && let [inner, null] = &branches[..]
        && *null == json!({ "type": "null" })
    {
        let mut inner = resolved(inner, definitions);
        all.remove("anyOf");
        let nothing =
            json!({ "type": "null", "title": "Nothing", "description": "The same as leaving the key out." });
        match ["oneOf", "anyOf"]
            .into_iter()
            .find(|key| inner.contains_key(*key) && !inner.contains_key("properties"))
        {
            Some(key) => {
                if let Some(Json::Array(branches)) = inner.get_mut(key) {
                    branches.push(nothing);
                }
            }
            None => {
                let kind = inner.remove("type").unwrap_or_default();
                inner.insert("type".to_owned(), json!([kind, "null"]));
            }
        }
        inner.into_iter().for_each(|(key, value)| {
            all.entry(key).or_insert(value);
        });
    }
    all
}

/// The branches of a schema, and their key.
fn branches(schema: &Map<String, Json>, definitions: &Json) -> Option<(&'static str, Vec<Json>)> {
    let key = ["oneOf", "anyOf"].into_iter().find(|key| schema.contains_key(*key))?;
    let branches = schema[key].as_array()?;
    Some((key, branches.iter().map(|branch| resolved(branch, definitions).into()).collect()))
}

/// The type of a schema, or the types of its branches.
fn types(schema: &Map<String, Json>) -> Json {
    if let Some(kind) = schema.get("type") {
        return kind.clone();
    }
    if let Some(allowed) = schema.get("enum").and_then(Json::as_array) {
        return of_values(allowed);
    }
    let mut kinds: Vec<&Json> = Vec::new();
    for branch in ["oneOf", "anyOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten() {
        let kind = &branch["type"];
        kinds.extend(kind.as_array().map_or(std::slice::from_ref(kind), Vec::as_slice));
    }
    one_or_many(kinds)
}

fn of_values(values: &[Json]) -> Json {
    let kinds: Vec<Json> = values
        .iter()
        .map(|value| match value {
            Json::Null => "null".into(),
            Json::Bool(_) => "boolean".into(),
            Json::Number(_) => "integer".into(),
            Json::String(_) => "string".into(),
            Json::Array(_) => "array".into(),
            Json::Object(_) => "object".into(),
        })
        .collect();
    one_or_many(kinds.iter().collect())
}

/// The distinct types: a list, or the type itself if there is only one.
fn one_or_many(kinds: Vec<&Json>) -> Json {
    let mut unique: Vec<&Json> = Vec::new();
    for kind in kinds {
        if !unique.contains(&kind) {
            unique.push(kind);
        }
    }
    if let [only] = unique[..] { only.clone() } else { unique.into_iter().cloned().collect() }
}

/// The title of a branch.
fn branch_title(branch: &Json) -> Option<String> {
    if let Some(title) = branch["title"].as_str().or_else(|| branch["const"].as_str()) {
        return Some(title.to_owned());
    }
    if let Some(required) = branch["required"][0].as_str() {
        return Some(title_of(required));
    }
    let title = match branch["type"].as_str()? {
        "array" if branch["maxItems"] == 2 => "One per address family",
        "array" => "List",
        "integer" => "Number",
        "null" => "Nothing",
        _ => return None,
    };
    Some(title.to_owned())
}

/// Turns a key into a title: `clusterPrefix` becomes `Cluster prefix`.
fn title_of(key: &str) -> String {
    match key {
        "os" => return "Operating system".to_owned(),
        "podCIDR" => return "Pod CIDR".to_owned(),
        "nat" | "mtu" | "tcp" => return key.to_uppercase(),
        _ => {}
    }
    let mut title = String::new();
    for character in key.chars() {
        if title.is_empty() {
            title.extend(character.to_uppercase());
        } else if character.is_uppercase() {
            title.push(' ');
            title.extend(character.to_lowercase());
        } else {
            title.push(character);
        }
    }
    title
}

/// The title of one item in a list with this title.
fn singular(title: &str) -> &str {
    match title {
        "Exclude" => "Excluded prefix",
        "One per address family" | "List" => "Entry",
        other => other.strip_suffix('s').unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `see` with the path of every subschema that an editor displays, and the subschema.
    fn walk(schema: &Json, place: &str, see: &mut impl FnMut(&str, &Json)) {
        see(place, schema);
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{place}/{key}"), see);
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                walk(&schema[key], &format!("{place}/{key}"), see);
            }
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            for (at, branch) in schema[key].as_array().into_iter().flatten().enumerate() {
                walk(branch, &format!("{place}/{key}/{at}"), see);
            }
        }
    }

    #[test]
    fn every_property_item_and_branch_has_a_type_and_a_title() {
        let (mut seen, mut errors) = (0, Vec::new());
        walk(&schema(), "", &mut |place, schema| {
            seen += 1;
            let known = ["string", "integer", "boolean", "array", "object", "null"];
            let is_type = |kind: &Json| kind.as_str().is_some_and(|kind| known.contains(&kind));
            let kind = &schema["type"];
            if !is_type(kind)
                && !kind.as_array().is_some_and(|kinds| kinds.len() > 1 && kinds.iter().all(is_type))
            {
                errors.push(format!("{place} has the type {kind}"));
            }
            if schema["title"].as_str().is_none_or(str::is_empty) {
                errors.push(format!("{place} has no title"));
            }
            if schema["description"].as_str().is_some_and(|text| text.contains('\n')) {
                errors.push(format!("the description of {place} contains a line break"));
            }
            if !schema["$ref"].is_null() {
                errors.push(format!("{place} is a reference"));
            }
            if kind == "object" && schema["properties"].is_object() && schema["oneOf"].is_null() {
                let closed = schema["additionalProperties"] == json!(false);
                if !closed && !place.contains("oneOf") {
                    errors.push(format!("{place} accepts any key"));
                }
            }
        });
        assert!(errors.is_empty(), "{errors:#?}");
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn every_property_is_described_and_an_operating_system_is_a_string() {
        let schema = schema();
        assert_eq!(schema["$id"], ID);
        assert_eq!(schema["properties"]["nodes"]["items"]["properties"]["os"]["type"], "string");
        assert_eq!(schema["properties"]["offLink"]["type"], json!(["string", "null"]));
        assert_eq!(schema["properties"]["clusterPrefix"]["type"], json!(["string", "array"]));
        walk(&schema, "", &mut |place, schema| {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string() || place.contains("oneOf"), "{place}/{key}");
            }
        });
    }

    #[test]
    fn keys_become_titles() {
        assert_eq!(title_of("clusterPrefix"), "Cluster prefix");
        assert_eq!(title_of("podCIDR"), "Pod CIDR");
        assert_eq!(title_of("mtu"), "MTU");
        assert_eq!(title_of("name"), "Name");
    }
}
