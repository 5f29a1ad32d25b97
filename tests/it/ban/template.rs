//! Templates that are filled in with awkward values, given to a real varnishd.
//!
//! Each value is a header of one cached object. The ban for a value has to take that object, and
//! no other one.

use purgewatch::admin::{Client, Options as Limits, SecretSource, Target};
use purgewatch::ban::{Expression, FillError, Template};
use purgewatch::model::NodeName;
use purgewatch::protocol::Command;

use crate::support::origin::{Origin, Response};
use crate::support::varnish::Varnishd;

/// What somebody may publish, as far as a header can hold it.
const VALUES: &[&str] = &[
    "a7",
    "a77",
    "A7",
    "a.7",
    "axx7",
    "a b",
    "a\tb",
    "a && obj.status == 200",
    "x && obj.http.x-model ~ .",
    "a&&b",
    "a&b",
    "\"a7\"",
    "'a7'",
    "a\"b",
    "a\\b",
    "a\\",
    "\\Ea.*\\Q",
    ".*",
    "(?i)a7",
    "(*UTF)a",
    "(",
    "[a-z]",
    "a{2}",
    "{1}",
    "a|b",
    "^a$",
    "a#b",
    "a;b",
    "<<",
    "größe",
    "日本",
    "-1",
    "1",
    "200",
    "a\\x20b",
];

fn filled(template: &Template, value: &str) -> Result<Expression, FillError<std::io::Error>> {
    template.fill(&mut |_| Ok(value.to_owned()))
}

#[tokio::test]
async fn a_value_takes_its_own_object_and_no_other() {
    let origin = Origin::start();
    let varnishd = Varnishd::in_front_of(origin.address);
    let secret = SecretSource::File(varnishd.secret_file().to_owned());
    let address = varnishd.admin.to_string().parse().unwrap();
    let target = Target::at(NodeName::new("cache-01").unwrap(), address, secret);
    let client = Client::new(target, Limits::default());
    let serve = |at: usize, version: usize| {
        let response = Response::ok(format!("version {version}."))
            .header("Cache-Control", "max-age=3600")
            .header("X-Model", VALUES[at]);
        origin.serve(&format!("/{at}"), response);
    };
    let version = |at: usize| {
        let answer = varnishd.get("example.com", &format!("/{at}"));
        let (_, version) = answer.split_once("version ").unwrap_or_else(|| panic!("{answer}"));
        version.trim_end_matches('.').parse::<usize>().unwrap()
    };
    let mut cached: Vec<usize> = vec![0; VALUES.len()];
    for at in 0..VALUES.len() {
        serve(at, 0);
        assert_eq!(version(at), 0);
    }
    let (mut banned, mut refused, mut round) = (0, Vec::new(), 0);
    for text in [
        r"obj.http.x-model ~ ^{1}\z",
        r"obj.http.x-model ~ ^(?:zz|{1})$",
        "obj.http.x-model == {1}",
    ] {
        let template = Template::parse(text).unwrap();
        for (at, value) in VALUES.iter().enumerate() {
            let ban = match filled(&template, value) {
                Ok(ban) => ban,
                Err(fault) => {
                    assert!(text.contains("=="), "{text} {value}: {fault}");
                    refused.push(*value);
                    continue;
                }
            };
            round += 1;
            (0..VALUES.len()).for_each(|at| serve(at, round));
            let command = Command::ban(ban.arguments()).unwrap();
            client.ban(command).await.unwrap_or_else(|error| panic!("{ban}: {error}"));
            cached[at] = round;
            for (other, expected) in cached.iter().enumerate() {
                let got = version(other);
                assert_eq!(got, *expected, "{ban}: the object of {:?}", VALUES[other]);
            }
            banned += 1;
        }
    }
    // Behind `==` there is no way to say these.
    let unsayable = ["a b", "a\tb", "a && obj.status == 200", "x && obj.http.x-model ~ .", "a&&b"];
    assert_eq!(refused, unsayable);
    assert_eq!(banned, 3 * VALUES.len() - refused.len());
}
