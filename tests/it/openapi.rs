//! The `OpenAPI` document against the running server: requests made from it, and their answers held to it.

use serde_json::{Value, json};

use crate::support::{Serve, Store, seed};

/// The document's text, with the value of `$ref` looked up.
struct Document(Value);

impl Document {
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(path) => {
                let pointer = path
                    .strip_prefix('#')
                    .expect("a reference into the document");
                let found = self.0.pointer(pointer);
                self.resolve(found.unwrap_or_else(|| panic!("{path} leads nowhere")))
            }
            None => value,
        }
    }

    /// Every operation: its path, its method and what is said of it.
    fn operations(&self) -> impl Iterator<Item = (&str, String, &Value)> {
        let paths = self.0["paths"].as_object().expect("paths");
        paths.iter().flat_map(|(path, item)| {
            let methods = ["get", "head", "put", "post", "delete"];
            methods.into_iter().filter_map(move |method| {
                let operation = item.get(method)?;
                Some((path.as_str(), method.to_uppercase(), operation))
            })
        })
    }

    /// The target that the examples of an operation's parameters make.
    fn target(&self, path: &str, operation: &Value) -> String {
        let (mut target, mut query) = (path.to_owned(), Vec::new());
        let item = &self.0["paths"][path];
        let lists = [&item["parameters"], &operation["parameters"]];
        for parameter in lists.into_iter().filter_map(Value::as_array).flatten() {
            let parameter = self.resolve(parameter);
            let name = parameter["name"].as_str().expect("a name");
            let examples = match &parameter["example"] {
                Value::Array(list) if parameter["explode"] == false => {
                    vec![json!(list.iter().map(plain).collect::<Vec<_>>().join(","))]
                }
                Value::Array(list) => list.clone(),
                Value::Null => panic!("{path}: {name} has no example"),
                one => vec![one.clone()],
            };
            match parameter["in"].as_str() {
                Some("path") => {
                    target = target.replace(&format!("{{{name}}}"), &plain(&examples[0]));
                }
                Some("query") => {
                    query.extend(examples.iter().map(|one| format!("{name}={}", plain(one))));
                }
                _ => {}
            }
        }
        if query.is_empty() {
            target
        } else {
            format!("{target}?{}", query.join("&"))
        }
    }

    /// A schema that stands alone.
    fn schema(&self, schema: &Value) -> Value {
        let mut whole = schema.clone();
        whole["components"] = self.0["components"].clone();
        whole
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn every_operation_answers_as_the_document_says() {
    for store in Store::all() {
        seed(&store.url(), 100, "");
        let serve = Serve::start(&store.url(), "--allow-writes --upstash");
        let document = Document(serve.get("/openapi.json").json());
        assert_eq!(document.0["openapi"], "3.1.0");
        let mut operations = 0;
        for (path, method, operation) in document.operations() {
            let target = document.target(path, operation);
            let requests = bodies(&document, operation);
            for (headers, body) in requests {
                check(
                    &document,
                    operation,
                    &serve,
                    (&method, &target),
                    &headers,
                    &body,
                );
            }
            // A method that is not listed is refused, and a parameter that is wrong gets a listed answer.
            let wrong = format!("{path}?k=&ids=x&ttl=x&encoding=x&bytes=x&after=x");
            check(
                &document,
                operation,
                &serve,
                (&method, &wrong),
                &[],
                b"no body",
            );
            if method != "HEAD" {
                check(&document, operation, &serve, ("PATCH", &target), &[], b"");
            }
            operations += 1;
        }
        assert!(operations >= 25, "only {operations} operations");
    }
}

/// The bodies to send: those of the document, or none.
fn bodies(document: &Document, operation: &Value) -> Vec<(Vec<String>, Vec<u8>)> {
    let body = document.resolve(&operation["requestBody"]);
    let Some(kinds) = body["content"].as_object() else {
        return vec![(Vec::new(), Vec::new())];
    };
    kinds
        .iter()
        .map(|(kind, media)| {
            let example = &media["example"];
            let bytes = if kind == "application/json" {
                let schema = document.schema(&media["schema"]);
                assert!(jsonschema::is_valid(&schema, example), "{example}");
                example.to_string()
            } else {
                plain(example)
            };
            (vec![format!("content-type: {kind}")], bytes.into_bytes())
        })
        .collect()
}

fn check(
    document: &Document,
    operation: &Value,
    serve: &Serve,
    (method, target): (&str, &str),
    headers: &[String],
    body: &[u8],
) {
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let reply = serve.ask(method, target, &headers, body);
    let about = format!("{method} {target}: {} {}", reply.status, reply.text());
    let listed = &operation["responses"][reply.status.to_string()];
    assert!(!listed.is_null(), "not listed: {about}");
    let response = document.resolve(listed);
    if method == "HEAD" || reply.body.is_empty() {
        return;
    }
    let kind = reply.header("content-type").expect("a content type");
    let content = response["content"].as_object();
    let media = content.into_iter().flatten().find(|(listed, _)| {
        listed.to_lowercase().replace(' ', "") == kind.replace(' ', "")
            || kind.split(';').next() == Some(listed.as_str())
    });
    let (_, media) = media.unwrap_or_else(|| panic!("{kind} is not listed: {about}"));
    if kind.contains("json") {
        let schema = document.schema(&media["schema"]);
        if let Err(error) = jsonschema::validate(&schema, &reply.json()) {
            panic!("{error}: {about}");
        }
    }
}
