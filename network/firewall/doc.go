// Package firewall decides what managed networks need of the host's packet filter and writes it as one nftables table.
//
// [Rules] says it in a few words, [Rules.Chains] turns that into chains of [Rule] values (pure; the tests read them
// as the text that nft prints), and [Table.Replace] puts all of them in place of the old ones in one transaction: there is
// no moment with half of the rules. The table is ours alone; those of others are only read, by
// [Table.Obstacles], because a forward chain elsewhere that drops by default makes our accept worthless.
package firewall
