/* A link between two network namespaces: every packet is delayed, the rate is limited, some are lost.
 *
 *     link NAMESPACE NAMESPACE DELAY_US RATE_BITS LOSS_PER_MILLION QUEUE_MS
 *
 * Makes a TUN device `link` in each namespace (/var/run/netns) and moves packets between them. DELAY_US is that of
 * one direction. Each direction has a queue in front of the rate, of QUEUE_MS at that rate; what finds it
 * full is dropped, as at a router. Prints "ready", ends by SIGTERM. Needs CAP_NET_ADMIN and /dev/net/tun.
 *
 * The kernel's own (tc netem) does the same where it is built in; this is the same everywhere. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET 9216
#define SLOTS 32768 /* packets under way in one direction: a power of two */
#define BATCH 64

struct packet {
    uint64_t due_ns;
    uint32_t size;
    unsigned char data[PACKET];
};

struct direction {
    int from, to;
    uint64_t free_ns; /* when the rate allows the next packet to begin */
    uint32_t head, count;
    struct packet *ring;
};

static uint64_t delay_ns, rate_bits, queue_ns, random_state = 88172645463325252ULL;
static uint32_t loss_per_million;

static uint64_t now_ns(void) {
    struct timespec spec;
    clock_gettime(CLOCK_MONOTONIC, &spec);
    return (uint64_t)spec.tv_sec * 1000000000ULL + (uint64_t)spec.tv_nsec;
}

static uint32_t draw(void) { /* xorshift64: losses need no better */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int tun_in(const char *space) {
    char path[256];
    struct ifreq request;
    int fd;
    snprintf(path, sizeof path, "/var/run/netns/%s", space);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) fail(path);
    close(fd);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) fail("/dev/net/tun");
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "link");
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &request) < 0) fail("TUNSETIFF");
    return fd;
}

static void take(struct direction *way) {
    unsigned char overflow[PACKET];
    for (int i = 0; i < BATCH; i++) {
        struct packet *packet = &way->ring[(way->head + way->count) % SLOTS];
        int full = way->count == SLOTS;
        ssize_t size = read(way->from, full ? overflow : packet->data, PACKET);
        uint64_t now;
        if (size <= 0) return;
        now = now_ns();
        if (full || draw() % 1000000 < loss_per_million) continue;
        if (way->free_ns < now) way->free_ns = now;
        if (way->free_ns - now > queue_ns) continue;
        way->free_ns += (uint64_t)size * 8 * 1000000000ULL / rate_bits;
        packet->due_ns = way->free_ns + delay_ns;
        packet->size = (uint32_t)size;
        way->count++;
    }
}

static void give(struct direction *way, uint64_t now) {
    while (way->count && way->ring[way->head].due_ns <= now) {
        struct packet *packet = &way->ring[way->head];
        if (write(way->to, packet->data, packet->size) < 0 && errno != EAGAIN && errno != EIO) fail("write");
        way->head = (way->head + 1) % SLOTS;
        way->count--;
    }
}

int main(int count, char **arguments) {
    struct direction ways[2];
    struct pollfd polls[2];
    memset(ways, 0, sizeof ways);
    if (count != 7) {
        fprintf(stderr, "usage: link NAMESPACE NAMESPACE DELAY_US RATE_BITS LOSS_PER_MILLION QUEUE_MS\n");
        return 2;
    }
    delay_ns = strtoull(arguments[3], NULL, 10) * 1000;
    rate_bits = strtoull(arguments[4], NULL, 10);
    loss_per_million = (uint32_t)strtoul(arguments[5], NULL, 10);
    queue_ns = strtoull(arguments[6], NULL, 10) * 1000000;
    ways[0].from = ways[1].to = tun_in(arguments[1]);
    ways[1].from = ways[0].to = tun_in(arguments[2]);
    for (int i = 0; i < 2; i++) {
        ways[i].ring = calloc(SLOTS, sizeof(struct packet));
        if (!ways[i].ring) fail("calloc");
        polls[i].fd = ways[i].from;
        polls[i].events = POLLIN;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint64_t now = now_ns(), next = now + 100000000;
        struct timespec wait;
        for (int i = 0; i < 2; i++) {
            give(&ways[i], now);
            if (ways[i].count && ways[i].ring[ways[i].head].due_ns < next) next = ways[i].ring[ways[i].head].due_ns;
        }
        now = now_ns();
        next = next > now ? next - now : 0;
        wait.tv_sec = 0;
        wait.tv_nsec = (long)next;
        if (ppoll(polls, 2, &wait, NULL) < 0 && errno != EINTR) fail("ppoll");
        for (int i = 0; i < 2; i++) take(&ways[i]);
    }
}
