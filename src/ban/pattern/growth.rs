//! The verdict on a pattern: fine, slow on very long values, or able to end a cache process.

use std::fmt;

use super::MATCH_LIMIT;
use super::ambiguity::Loops;
use super::automaton::Automaton;
use super::shape::Shape;
use super::syntax::{Node, Pattern, Repeat};

/// A value of so many bytes is one that a client may well send: refused.
const PLAUSIBLE_LENGTH: f64 = 1_000.0;
/// The longest header line, and so about the longest URL, that varnishd takes as delivered
/// (parameter `http_req_hdr_len`, 8 KiB): warned about.
const LONGEST_LENGTH: f64 = 8_192.0;
/// Optional pieces from which on their combinations are counted.
const MANY_CHOICES: usize = 12;

/// Two loops with so many bytes between them can hand over only at every so many bytes: with that,
/// a value has to be longer than [`LONGEST_LENGTH`] to exceed the limit.
const FAR_APART: usize = 4;

/// How the time of a match grows with the length of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It doubles every few bytes.
    Exponential {
        /// The length of a value that is enough to exceed the limit, in bytes, about.
        length: usize,
    },
    /// It is a power of the length.
    Polynomial {
        /// The power.
        degree: u32,
        /// The length of a value that is enough to exceed the limit, in bytes, about.
        length: usize,
    },
    /// The regex is too large to tell.
    Unknown,
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exponential { length } => {
                write!(
                    f,
                    "its time can double with every few bytes, so a value of about {length} bytes is enough"
                )
            }
            Self::Polynomial { degree, length } => write!(
                f,
                "its time can grow with the length to the power of {degree}, so a value of about \
                 {length} bytes is enough"
            ),
            Self::Unknown => f.write_str("it is too large to tell how its time grows"),
        }
    }
}

/// What the structure of a pattern says about its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ban) enum Verdict {
    /// No value that varnishd takes makes it exceed the limit.
    Fine,
    /// Only a value of at least this length does.
    Slow {
        /// In bytes.
        length: usize,
    },
    /// A value of a plausible length does.
    Catastrophic(Growth),
}

/// Judges a pattern.
///
/// PCRE2 counts anew for each place of the value at which it starts, so a pattern without an
/// anchor is no worse than one with.
pub(in crate::ban) fn judge(pattern: Pattern) -> Verdict {
    let root = cut(pattern.root, true);
    judge_cut(&root, 0)
}

fn judge_cut(root: &Node, depth: usize) -> Verdict {
    let shape = Shape::of(root);
    let apart = shape.loops <= 1 || (shape.loops == 2 && shape.gap >= FAR_APART);
    if !shape.nested && apart && shape.choices < MANY_CHOICES {
        return Verdict::Fine;
    }
    let Ok(automaton) = Automaton::new(root) else {
        return judge_branches(root, depth);
    };
    let loops = Loops::new(&automaton);
    if let Some(turn) = loops.doubling() {
        // Two ways for each turn: 23 turns double past the limit.
        return Verdict::Catastrophic(match turn {
            0 => Growth::Unknown,
            turn => Growth::Exponential { length: turn * 23 },
        });
    }
    let mut verdict = Verdict::Fine;
    for power in loops.powers() {
        let length = length_at_limit(power.degree, power.thinning);
        let worse = match verdict {
            Verdict::Fine => true,
            Verdict::Slow { length: known }
            | Verdict::Catastrophic(Growth::Polynomial { length: known, .. }) => length < known,
            Verdict::Catastrophic(_) => false,
        };
        if worse {
            verdict = of_length(power.degree, length);
        }
    }
    if shape.choices >= MANY_CHOICES && loops.paths_over_one_byte() > MATCH_LIMIT / 10.0 {
        return Verdict::Catastrophic(Growth::Exponential { length: 48 });
    }
    verdict
}

/// A pattern of many alternatives is as bad as the worst of them.
fn judge_branches(root: &Node, depth: usize) -> Verdict {
    let branches: Vec<Node> = match root {
        Node::Alternate(branches) => branches.clone(),
        Node::Concat(nodes) => {
            // The widest alternation of it is taken apart.
            let width = |node: &Node| match node {
                Node::Alternate(branches) => branches.len(),
                _ => 0,
            };
            let widest = nodes.iter().enumerate().max_by_key(|(_, node)| width(node));
            let Some((at, Node::Alternate(branches))) = widest else {
                return Verdict::Catastrophic(Growth::Unknown);
            };
            let (before, behind) = nodes.split_at_checked(at).unwrap_or_default();
            let behind = behind.get(1..).unwrap_or_default();
            let around = |branch: &Node| [before, std::slice::from_ref(branch), behind].concat();
            branches.iter().map(|branch| Node::Concat(around(branch))).collect()
        }
        _ => Vec::new(),
    };
    if branches.is_empty() || depth >= 2 {
        return Verdict::Catastrophic(Growth::Unknown);
    }
    let mut worst = Verdict::Fine;
    for branch in &branches {
        match (judge_cut(branch, depth + 1), worst) {
            (Verdict::Fine, _) => {}
            (bad @ Verdict::Catastrophic(_), _) => return bad,
            (Verdict::Slow { length }, Verdict::Slow { length: known }) if length >= known => {}
            (slow, _) => worst = slow,
        }
    }
    worst
}

/// The length at which `length^degree` steps, thinned, exceed the limit. Where every byte can be
/// a turn of every loop there are `n^d / d!` paths; where each loop needs a text of its own, the
/// value has to be shared out among them.
fn length_at_limit(degree: u32, thinning: f64) -> usize {
    let power = f64::from(degree);
    let divisor = if thinning == 0.0 {
        (1..=degree).map(f64::from).product::<f64>()
    } else {
        libm::pow(power, power) / 2.0 * libm::exp(thinning)
    };
    let length = libm::pow(MATCH_LIMIT * divisor, 1.0 / power).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number that is cut at a million"
    )]
    let length = length.min(1e6) as usize;
    length
}

fn of_length(degree: u32, length: usize) -> Verdict {
    #[expect(clippy::cast_precision_loss, reason = "a million at most")]
    let long = length as f64;
    if long <= PLAUSIBLE_LENGTH {
        Verdict::Catastrophic(Growth::Polynomial { degree, length })
    } else if long <= LONGEST_LENGTH {
        Verdict::Slow { length }
    } else {
        Verdict::Fine
    }
}

/// Cuts away what cannot fail any more. Whether a value matches is settled as soon as everything
/// else has matched and the rest may be empty, so nothing is ever tried again on its account:
/// `^/a/.*` is as good as `^/a/`. `last` says that nothing follows which could fail.
fn cut(node: Node, last: bool) -> Node {
    match node {
        Node::Concat(nodes) => {
            let mut last = last;
            let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
            for node in nodes.into_iter().rev() {
                let passable = may_be_empty(&node);
                kept.push(cut(node, last));
                last &= passable;
            }
            kept.reverse();
            Node::Concat(kept)
        }
        Node::Alternate(nodes) => {
            Node::Alternate(nodes.into_iter().map(|node| cut(node, last)).collect())
        }
        Node::Repeat(repeat) => {
            let repeat = *repeat;
            match repeat.minimum {
                0 if last => Node::Empty,
                1 if last => cut(repeat.node, true),
                _ => {
                    let node = cut(repeat.node, false);
                    Node::Repeat(Box::new(Repeat { node, ..repeat }))
                }
            }
        }
        Node::Atomic(inner) => Node::Atomic(Box::new(cut(*inner, last))),
        // What it looks for has been found once its own end is reached.
        Node::Look(inner) => Node::Look(Box::new(cut(*inner, true))),
        node => node,
    }
}

/// Whether a node can be passed without a byte and without a condition.
fn may_be_empty(node: &Node) -> bool {
    match node {
        Node::Empty => true,
        Node::Concat(nodes) => nodes.iter().all(may_be_empty),
        Node::Alternate(nodes) => nodes.iter().any(may_be_empty),
        Node::Repeat(repeat) => repeat.minimum == 0 || may_be_empty(&repeat.node),
        Node::Atomic(inner) => may_be_empty(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(pattern: &str) -> Verdict {
        assert!(pcre2::bytes::Regex::new(pattern).is_ok(), "{pattern}");
        judge(Pattern::read(pattern.as_bytes()))
    }

    /// As they stand in Varnish set-ups: shops, news sites, APIs, cache tags, file types.
    const ORDINARY: &[&str] = &[
        r"^/product/12345$",
        r"^/product/[0-9]+$",
        r"^/product/\d+(\?.*)?$",
        r"^/products/[a-z0-9-]+/?$",
        r"^/de/.*",
        r"^/(de|en|fr)/.*\.html$",
        r"^/(de|en)/shop/.*\.html(\?.*)?$",
        r"\.(css|js)$",
        r"\.(css|js|png|gif|jpe?g|svg|woff2?)(\?.*)?$",
        r"(?i)\.(jpg|png|webp)$",
        r"^/api/v[0-9]+/users/[0-9]+/orders$",
        r"^/api/v1/recommendations/.*",
        r"^/api/.*/items/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"^[^?]*\?(.*&)?utm_source=",
        r"^/search\?q=[^&]+&page=\d+$",
        r"^/search\?.*q=shoes",
        r"(^|,)tag-12(,|$)",
        r"(^| |,)tag-12(,| |$)",
        r"((^|,)cat_p_1(,|$))|((^|,)cat_p_2(,|$))",
        r"((^|,)(cat_p_1|cat_p_2|cat_c_7|cms_b_3)(,|$))",
        r"(^|\s)(node:12|node_list|taxonomy_term:4)(\s|$)",
        r"\bnode:12\b",
        r"(?:^|,)(?:post-12|home|feed)(?:,|$)",
        r"(^|[, ])(p-1|p-2)([, ]|$)",
        r",?product_9,?",
        r"^/$",
        r"^/?$",
        r"^/news/2024/(0[1-9]|1[0-2])/",
        r"^/news/\d{4}/\d{2}/\d{2}/[^/]+\.html$",
        r"^/wp-content/uploads/.*\.(jpg|jpeg|png)$",
        r"^/wp-json/wp/v2/posts(/.*)?$",
        r"^/(feed|rss|atom)/?$",
        r"^/category/[^/]+/page/\d+/?$",
        r"^/[^/]+/[^/]+/[^/]+/?$",
        r"^/tag/[^/]*/feed$",
        r"^/static/[0-9a-f]+/.*\.js$",
        r"^/static/(?!admin).*\.js$",
        r"^/assets/.+\.[0-9a-f]{8,64}\.(js|css)$",
        r"^/media/catalog/product/cache/[^/]+/.*$",
        r"^/images/(thumb|small|large)/\d+x\d+/.*",
        r"^/sitemap(_index|-[a-z]+-?\d*)?\.xml(\.gz)?$",
        r"^/user/[A-Za-z0-9_.-]{1,32}/profile",
        r"^/[a-z]{2}(-[a-z]{2})?/",
        r"^(/[a-z]{2})?/products/.*",
        r"^/(?:[a-z]{2}/)?products/.*",
        r"^/(?:[a-z]+/)*index\.html$",
        r"^/([^/]+/)*[^/]+\.php$",
        r"^/([a-z0-9-]+/)+$",
        r"^/docs/(v[0-9.]+|latest)/",
        r"^(www\.)?example\.(com|org)$",
        r"^([a-z0-9-]+\.)*example\.com$",
        r"^([a-z0-9-]+\.)*example\.com(:[0-9]+)?$",
        r"(?i)^shop\.example\.com(:80)?\z",
        r"^[^.]+\.cdn\.example\.net$",
        r"^text/(html|css)(;.*)?$",
        r"^image/",
        r"application/(json|ld\+json|xml)",
        r"^(2|3)[0-9][0-9]$",
        r"^5\d\d$",
        r"lang=(de|en)",
        r"session(id)?=[^;]+;",
        r"(^|; )sid=[^;]*(;|$)",
        r"^/a%20b/\?x=\[1\]$",
        r"^/p/(?:1|2|3|4|5|6|7|8|9|10|11|12|13|14|15)$",
        r"/amp/?$",
        r"\?.*nocache",
        r"^/esi/(header|footer)\?.*$",
        r"^/v1/(items|users)/[^/?]+(/(photos|likes))?(\?.*)?$",
        r"^/.*\.html$",
        r"foo.*bar",
        r"foo.*bar.*baz",
        r"/product/.*/reviews/.*\.json$",
        r"^/blog/.*-.*/$",
        r"^/(\w+)/\1$",
        r"^/x(?>[a-z]+/)*y$",
        r"^/x(?:[a-z]++/?)*y$",
        r"^/(a++)+$",
        r"^/(a+)+",
        r"^/(.*/)*",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"^/img/\d{1,4}x\d{1,4}/[a-z0-9]{1,40}\.jpg$",
        r"[[:alnum:]]+-[[:digit:]]+\.pdf",
    ];

    /// Each was seen to end the cache process of varnishd 7.1.1; the test that does so again is
    /// among the integration tests.
    const CRASHING: &[&str] = &[
        r"^/(a+)+$",
        r"^/(a|b|ab)*c$",
        r"^/(a*)*$",
        r"^/(a|a)*$",
        r"^/(a|aa)+$",
        r"^/(.*)*x$",
        r"^/(.*/)*x$",
        r"(.*/)*x",
        r"^/([a-z]+/?)*$",
        r"^/([a-z0-9]+-?)+\.html$",
        r"^/(\w+\s?)*$",
        r"^/(\d+,?)*x$",
        r"^/([^/]+/?)+\.php$",
        r"^(/?[a-z]+)*\.html$",
        r"^([a-z0-9]+\.?)+$",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"^/(?:a?){30}a{30}$",
        r"^/a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaaaaaaaaa$",
        r"^/(a|b|ab){1,40}c$",
        r"^/([a-z]{1,8}-?){1,30}!$",
        r"^/(x+x+)+y$",
        r"^/(?:(?:a|b)+c?)*d$",
        r"^/((ab)*)*c$",
        r"^/(?=(a+)+$)b?",
        r"^/(?!(a+)+b)",
        r"^/.*.*.*x$",
        r".*.*.*xy",
        r"^/.*/.*/.*/.*\.html$",
        r"^/.*a.*a.*a.*b$",
        r"^/\w+\d+\w+\d+\w+!$",
        r"^/(\w*)-?(\w*)-?(\w*)-?(\w*)!$",
        r"(a+)+b|x",
        r"(?i)^/(A+)+$",
        r"^/(?:\w|[a-f]|\d)+$",
        r"^/(a+)+b++$",
        r"^/(\Xa?)+$",
        r"^/([[:<:]]?a+)+$",
    ];

    #[test]
    fn passes_ordinary_patterns() {
        assert!(ORDINARY.len() >= 60);
        let refused: Vec<_> = ORDINARY
            .iter()
            .map(|pattern| (pattern, judged(pattern)))
            .filter(|(_, verdict)| matches!(verdict, Verdict::Catastrophic(_)))
            .collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }

    #[test]
    fn a_repeated_choice_of_many_words_is_judged() {
        let words = |word: &str, count: usize| {
            (0..count).map(|n| word.replace('N', &n.to_string())).collect::<Vec<_>>().join("|")
        };
        assert_eq!(judged(&format!("^/(?:{})*index$", words("pN/", 60))), Verdict::Fine);
        let ambiguous = judged(&format!("^/(?:{})*index$", words("N", 60)));
        assert!(matches!(ambiguous, Verdict::Catastrophic(_)));
        // Tags by the thousand have no loop to judge, and alternatives are judged one by one.
        assert_eq!(judged(&format!("(^|,)({})(,|$)", words("t-N", 3_000))), Verdict::Fine);
        let many = judged(&format!("^/({})/.*x$", words("cN-[0-9]+", 1_000)));
        assert_eq!(many, Verdict::Fine);
        let many = judged(&format!("^/({})$", words("cN-[0-9]+/[a-z]+", 600)));
        assert_eq!(many, Verdict::Fine);
        let one_is_bad = format!("^/({}|(a+)+)$", words("cN-[0-9]+-[a-z]+", 500));
        assert!(matches!(judged(&one_is_bad), Verdict::Catastrophic(_)));
    }

    #[test]
    fn refuses_patterns_that_crash() {
        let missed: Vec<_> = CRASHING
            .iter()
            .map(|pattern| (pattern, judged(pattern)))
            .filter(|(_, verdict)| !matches!(verdict, Verdict::Catastrophic(_)))
            .collect();
        assert!(missed.is_empty(), "{missed:#?}");
    }

    /// Values made to be hard: short texts repeated, with an end that fits nothing.
    fn exceeds_the_limit(pattern: &str, length: usize) -> Option<String> {
        let regex = pcre2::bytes::Regex::new(pattern).unwrap();
        let letters = ["a", "b", "/", "-"];
        let mut words: Vec<String> = vec![String::new()];
        for _ in 0..3 {
            let longer = words.iter().flat_map(|w| letters.map(|l| format!("{w}{l}")));
            words = words.iter().cloned().chain(longer).collect();
            words.sort_unstable();
            words.dedup();
        }
        words.retain(|word| !word.is_empty());
        words.into_iter().find_map(|word| {
            ["", "!", "b!", "/!-"].into_iter().find_map(|end| {
                let value = format!("/{}{end}", word.repeat(length / word.len()));
                // A literal that has to occur is asked for before anything else.
                let value = format!("{value}ab/-!");
                regex.is_match(value.as_bytes()).is_err().then_some(value)
            })
        })
    }

    fn patterns() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            "a", "b", "/", "-", "ab", "[ab]", "[^/]", ".", "\\w", "a?", "a*", "b+", "[^/]*", ".*",
            "a{2,3}", "\\w+", "a*+", "(?!a)", "\\b", "$",
        ])
        .prop_map(str::to_owned);
        let node = atom.prop_recursive(3, 12, 3, |inner| {
            let quantifier =
                prop::sample::select(vec!["", "*", "+", "?", "{2}", "{1,30}", "*?", "*+"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                prop::collection::vec(inner.clone(), 2..4)
                    .prop_map(|parts| format!("(?:{})", parts.join("|"))),
                (inner.clone(), quantifier).prop_map(|(part, q)| format!("({part}){q}")),
                inner.prop_map(|part| format!("(?>{part})")),
            ]
        });
        (
            node,
            prop::sample::select(vec!["", "^/", "^"]),
            prop::sample::select(vec!["", "$", "c", "!x"]),
        )
            .prop_map(|(node, start, end)| format!("{start}{node}{end}"))
    }

    /// Each case asks PCRE2 some hundred times: an eighth of the usual number.
    fn fewer_cases() -> ProptestConfig {
        let usual = ProptestConfig::default();
        ProptestConfig { cases: usual.cases / 8, ..usual }
    }

    proptest! {
        #![proptest_config(fewer_cases())]

        #[test]
        fn what_passes_stays_within_the_limit(pattern in patterns()) {
            if matches!(judged(&pattern), Verdict::Fine | Verdict::Slow { .. }) {
                for length in [60, 600] {
                    let value = exceeds_the_limit(&pattern, length);
                    prop_assert!(value.is_none(), "{} on {:?}", pattern, value);
                }
            }
        }
    }
}
