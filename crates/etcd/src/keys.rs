//! Names of keys. All of a context's table lies in one range, what is asked of it at once lies in ranges within.

use mutext_contract::{ContextName, LeaseId};

use crate::options::EtcdOptions;

/// What an entry of the table is, as its key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A request that waits.
    Waiting,
    /// A request that waits to take the place of a lease of its own.
    Convert,
    /// A lease.
    Held,
    /// A lease that took the place of another.
    Converted,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Convert, Self::Converted, Self::Held, Self::Waiting];

    const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Convert => "convert",
            Self::Held => "held",
            Self::Converted => "converted",
        }
    }

    pub(crate) const fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Converted)
    }

    /// What a request of this kind becomes when it is granted.
    pub(crate) const fn granted(self) -> Self {
        match self {
            Self::Waiting | Self::Held => Self::Held,
            Self::Convert | Self::Converted => Self::Converted,
        }
    }

    /// What a request waits as.
    pub(crate) const fn of_request(replaces: Option<LeaseId>) -> Self {
        if replaces.is_some() { Self::Convert } else { Self::Waiting }
    }
}

/// A range of keys: from the first to before the last.
pub(crate) type Range = (Vec<u8>, Vec<u8>);

/// Names keys below one prefix.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(options: &EtcdOptions) -> Self {
        Self { prefix: options.prefix().to_owned() }
    }

    fn table_prefix(&self, context: &ContextName) -> String {
        format!("{}/locks/{context}/", self.prefix)
    }

    pub(crate) fn entry(&self, context: &ContextName, class: Class, id: LeaseId) -> Vec<u8> {
        format!("{}{}/{id}", self.table_prefix(context), class.word()).into_bytes()
    }

    /// The epoch of a context's tokens; it lies among its table, and outside of the ranges within.
    pub(crate) fn epoch(&self, context: &ContextName) -> Vec<u8> {
        format!("{}epoch", self.table_prefix(context)).into_bytes()
    }

    /// Everything of a context.
    pub(crate) fn table(&self, context: &ContextName) -> Range {
        let prefix = self.table_prefix(context);
        (prefix.clone().into_bytes(), format!("{}0", &prefix[..prefix.len() - 1]).into_bytes())
    }

    /// Everything that has to do with the replacement of a lease: what waits for it, and what came of it.
    pub(crate) fn conversions(&self, context: &ContextName) -> Range {
        let prefix = self.table_prefix(context);
        (format!("{prefix}conv").into_bytes(), format!("{prefix}conw").into_bytes())
    }

    /// All other leases and requests.
    pub(crate) fn ordinary(&self, context: &ContextName) -> Range {
        let prefix = self.table_prefix(context);
        (format!("{prefix}held").into_bytes(), format!("{prefix}x").into_bytes())
    }

    /// For an hour: that an attempt or a lease was ended by another, and why.
    pub(crate) fn ended(&self, context: &ContextName, id: LeaseId) -> Vec<u8> {
        format!("{}/ended/{context}/{id}", self.prefix).into_bytes()
    }

    /// What a process, named by its etcd lease, is told: of this lease, that it was taken.
    pub(crate) fn news(&self, home: i64, id: LeaseId) -> Vec<u8> {
        format!("{}/news/{home:016x}/{id}", self.prefix).into_bytes()
    }

    /// All that a process is told.
    pub(crate) fn all_news(&self, home: i64) -> Range {
        let prefix = format!("{}/news/{home:016x}", self.prefix);
        (format!("{prefix}/").into_bytes(), format!("{prefix}0").into_bytes())
    }

    /// The lease that news are about.
    pub(crate) fn told_of(key: &[u8]) -> Option<LeaseId> {
        std::str::from_utf8(key).ok()?.rsplit('/').next()?.parse().ok()
    }

    /// What a key of a context's table stands for; none for its epoch.
    pub(crate) fn read(&self, context: &ContextName, key: &[u8]) -> Option<(Class, LeaseId)> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.table_prefix(context))?;
        let (word, id) = rest.split_once('/')?;
        let class = Class::ALL.into_iter().find(|class| class.word() == word)?;
        Some((class, id.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_hold_what_they_say_and_no_other_context() {
        let keys = Keys::new(&EtcdOptions::parse("etcd://h?prefix=a/b").unwrap());
        let context = ContextName::new("plan").unwrap();
        let within = |(from, to): &Range, key: &[u8]| from.as_slice() <= key && key < to.as_slice();
        let id = LeaseId::random();
        for class in Class::ALL {
            let key = keys.entry(&context, class, id);
            assert_eq!(keys.read(&context, &key), Some((class, id)));
            assert!(within(&keys.table(&context), &key));
            let converts = matches!(class, Class::Convert | Class::Converted);
            assert_eq!(within(&keys.conversions(&context), &key), converts);
            assert_eq!(within(&keys.ordinary(&context), &key), !converts);
            for other in ["plan-b", "plan.b", "plans", "pla"] {
                let other = keys.entry(&ContextName::new(other).unwrap(), class, id);
                assert!(!within(&keys.table(&context), &other) && keys.read(&context, &other).is_none());
            }
        }
        let epoch = keys.epoch(&context);
        assert!(within(&keys.table(&context), &epoch) && keys.read(&context, &epoch).is_none());
        assert!(!within(&keys.conversions(&context), &epoch) && !within(&keys.ordinary(&context), &epoch));
        let news = keys.news(7, id);
        assert!(within(&keys.all_news(7), &news) && !within(&keys.all_news(8), &news));
        assert_eq!(Keys::told_of(&news), Some(id));
    }
}
