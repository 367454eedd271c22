/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maglev tables (Eisenbud et al., NSDI 2016, section 3.4): the hash of a flow is a column, and the column names a backend.
 * Nothing that only this host knows is part of the hash or of a table: hosts with the same backends pick the same one.
 */
#ifndef DPD_MAGLEV_H
#define DPD_MAGLEV_H

#include "../mechanism/address.h"
#include "../mechanism/generation.h"

struct maglev_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct maglev_row));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct maglev_table);
} dpd_maglev __weak SEC(".maps");

/* A multiplication spreads each bit to the higher ones, the shift brings those down: different words, different results. */
static __always_inline __u64 maglev_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 / the golden ratio (Knuth, TAOCP 6.4) */
	return hash ^ hash >> 32;
}

/* The last step of MurmurHash3 (Appleby, fmix64): each bit of the result depends on every bit. */
static __always_inline __u64 maglev_finish(__u64 hash)
{
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

/* Of a client's flow to a frontend: the same on every host, whatever its byte order. */
static __always_inline __u32 maglev_hash(const struct flow_tuple *tuple)
{
	__u64 ports = (__u64)bpf_ntohs(tuple->source_port) << 32 |
		      (__u64)bpf_ntohs(tuple->destination_port) << 16 | tuple->protocol;
	__u64 hash = maglev_mix(0, bpf_be64_to_cpu(tuple->source.word[0]));

	hash = maglev_mix(hash, bpf_be64_to_cpu(tuple->source.word[1]));
	hash = maglev_mix(hash, bpf_be64_to_cpu(tuple->destination.word[0]));
	hash = maglev_mix(hash, bpf_be64_to_cpu(tuple->destination.word[1]));
	hash = maglev_mix(hash, ports);
	return maglev_finish(hash) >> 32;
}

/* Of a client alone, where all its connections are to go to one backend. */
static __always_inline __u32 maglev_hash_client(const struct address *client)
{
	__u64 hash = maglev_mix(0, bpf_be64_to_cpu(client->word[0]));

	return maglev_finish(maglev_mix(hash, bpf_be64_to_cpu(client->word[1]))) >> 32;
}

/* What a column of the table that starts at this row holds; minus one if the table is missing. */
static __always_inline __s32 maglev_find(__u32 slot, __u32 first, __u32 column)
{
	void *table = bpf_map_lookup_elem(&dpd_maglev, &slot);
	__u32 index = first + column / MAGLEV_ROW_SIZE;
	const struct maglev_row *row = table ? bpf_map_lookup_elem(table, &index) : 0;

	return row ? row->column[column % MAGLEV_ROW_SIZE] : -1;
}

#endif
