/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sockets.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mir_clock.h"

mir_status mir_sockets_take(mir_sockets *sockets, int fd, void *user, uint32_t *id)
{
    if (sockets->free_head == 0) {
        if (sockets->page_count == MIR_SOCKET_PAGES_MAX) return MIR_E_FULL;
        mir_socket *page = calloc(MIR_SOCKETS_PER_PAGE, sizeof *page);
        if (page == NULL) return MIR_E_NO_MEMORY;
        uint32_t base = sockets->page_count * MIR_SOCKETS_PER_PAGE;
        sockets->pages[sockets->page_count++] = page;
        for (uint32_t i = MIR_SOCKETS_PER_PAGE; i-- > 0;) {
            page[i].next_free = sockets->free_head;
            sockets->free_head = base + i + 1;
        }
    }
    *id = sockets->free_head - 1;
    mir_socket *socket = mir_sockets_at(sockets, *id);
    sockets->free_head = socket->next_free;
    *socket =
        (mir_socket){.fd = fd, .generation = socket->generation + 1, .user = user, .used = true};
    return MIR_OK;
}

void mir_sockets_give(mir_sockets *sockets, uint32_t id)
{
    mir_socket *socket = mir_sockets_at(sockets, id);
    MIR_ASSERT(socket->used && socket->sending == NULL && !socket->starved);
    socket->used = false;
    socket->next_free = sockets->free_head;
    sockets->free_head = id + 1;
}

void mir_sockets_close_all(mir_sockets *sockets)
{
    for (uint32_t id = 0; id < sockets->page_count * MIR_SOCKETS_PER_PAGE; id++) {
        mir_socket *socket = mir_sockets_at(sockets, id);
        if (!socket->used || socket->fd < 0) continue;
        (void)close(socket->fd);
        socket->fd = -1;
    }
}

void mir_sockets_free(mir_sockets *sockets)
{
    for (uint32_t i = 0; i < sockets->page_count; i++) {
        for (uint32_t j = 0; j < MIR_SOCKETS_PER_PAGE; j++) free(sockets->pages[i][j].sending);
        free(sockets->pages[i]);
    }
    while (sockets->send_free != NULL) {
        mir_send_block *next = sockets->send_free->next;
        free(sockets->send_free);
        sockets->send_free = next;
    }
    free(sockets->starved.items);
}

bool mir_send_block_take(mir_send_block *block, size_t sent)
{
    struct msghdr *header = &block->header;
    while (header->msg_iovlen > 0 && sent >= header->msg_iov->iov_len) {
        sent -= header->msg_iov->iov_len;
        header->msg_iov++;
        header->msg_iovlen--;
    }
    if (header->msg_iovlen == 0) return true;
    header->msg_iov->iov_base = (uint8_t *)header->msg_iov->iov_base + sent;
    header->msg_iov->iov_len -= sent;
    return false;
}

void mir_sockets_send_begin(mir_sockets *sockets, mir_socket *socket, const struct iovec *vectors,
                            unsigned count, size_t sent)
{
    MIR_ASSERT(socket->used && !socket->closing && socket->sending == NULL);
    MIR_ASSERT(count >= 1 && count <= MIR_SEND_VECTORS_MAX);
    mir_send_block *block = sockets->send_free;
    if (block != NULL) {
        sockets->send_free = block->next;
    } else {
        block = malloc(sizeof *block);
        MIR_ASSERT(block != NULL); /* one block for each send in flight, reused */
    }
    memcpy(block->vectors, vectors, count * sizeof *vectors);
    block->header = (struct msghdr){.msg_iov = block->vectors, .msg_iovlen = count};
    block->total_bytes = 0;
    for (unsigned i = 0; i < count; i++) block->total_bytes += vectors[i].iov_len;
    socket->sending = block;
    (void)mir_send_block_take(block, sent);
}

void mir_sockets_send_end(mir_sockets *sockets, mir_socket *socket)
{
    socket->sending->next = sockets->send_free;
    sockets->send_free = socket->sending;
    socket->sending = NULL;
}

bool mir_ids_add(mir_ids *ids, uint32_t id)
{
    if (ids->count == ids->capacity) {
        uint32_t want = ids->capacity == 0 ? 64 : ids->capacity * 2;
        uint32_t *grown = realloc(ids->items, want * sizeof *grown);
        if (grown == NULL) return false;
        ids->items = grown;
        ids->capacity = want;
    }
    ids->items[ids->count++] = id;
    return true;
}

static void ids_remove(mir_ids *ids, uint32_t at, uint32_t count)
{
    ids->count -= count;
    memmove(ids->items + at, ids->items + at + count, (ids->count - at) * sizeof *ids->items);
}

bool mir_sockets_starve(mir_sockets *sockets, uint32_t id)
{
    mir_socket *socket = mir_sockets_at(sockets, id);
    socket->starved = mir_ids_add(&sockets->starved, id);
    return socket->starved;
}

void mir_sockets_unstarve(mir_sockets *sockets, uint32_t id)
{
    mir_socket *socket = mir_sockets_at(sockets, id);
    if (!socket->starved) return;
    socket->starved = false;
    uint32_t at = 0;
    while (sockets->starved.items[at] != id) at++;
    ids_remove(&sockets->starved, at, 1);
}

void mir_sockets_feed(mir_sockets *sockets, uint32_t buffer_count, mir_poller *poller,
                      void (*feed)(mir_poller *poller, uint32_t id, mir_socket *socket))
{
    mir_ids *starved = &sockets->starved;
    uint32_t count = starved->count < buffer_count ? starved->count : buffer_count;
    for (uint32_t i = 0; i < count; i++) {
        mir_socket *socket = mir_sockets_at(sockets, starved->items[i]);
        socket->starved = false;
        feed(poller, starved->items[i], socket);
    }
    if (count != 0) ids_remove(starved, 0, count);
}

uint32_t mir_sockets_listener_place(const mir_sockets *sockets)
{
    uint32_t i = 0;
    while (i < MIR_LISTENERS_MAX && (sockets->listeners[i].used || sockets->listeners[i].armed))
        i++;
    return i;
}

uint32_t mir_sockets_listener_find(const mir_sockets *sockets, int fd)
{
    uint32_t i = 0;
    while (i < MIR_LISTENERS_MAX && !(sockets->listeners[i].used && sockets->listeners[i].fd == fd))
        i++;
    return i;
}

void mir_listener_rest(mir_listener *listener)
{
    listener->rest_until_ns = mir_clock_mono_ns() + MIR_POLLER_ACCEPT_REST_MS * MIR_NS_PER_MS;
}

int64_t mir_sockets_watch_rested(mir_sockets *sockets, int64_t timeout_ns, mir_poller *poller,
                                 bool (*watch)(mir_poller *poller, uint32_t index))
{
    for (uint32_t i = 0; i < MIR_LISTENERS_MAX; i++) {
        mir_listener *l = &sockets->listeners[i];
        if (!l->used || l->rest_until_ns == 0) continue;
        int64_t now_ns = mir_clock_mono_ns();
        if (now_ns >= l->rest_until_ns) {
            l->rest_until_ns = 0;
            if (watch(poller, i)) continue;
            mir_listener_rest(l);
        }
        int64_t left_ns = l->rest_until_ns - now_ns;
        if (left_ns < timeout_ns) timeout_ns = left_ns;
    }
    return timeout_ns;
}

void mir_sockets_wake(int wake_fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(wake_fd, &one, sizeof one);
    (void)ignored; /* Only a counter at its limit refuses, and then the wake is pending anyway. */
}
