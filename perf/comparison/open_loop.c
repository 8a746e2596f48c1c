/* Asks at times that are fixed beforehand, whether or not the answers keep up, and
 * counts each answer's time from when its request was due: what a client sees who
 * does not know that the server is busy.
 *
 *     open_loop PORT PATH CONNECTIONS RATE SECONDS CA_FILE
 *
 * Opens all connections, says "ready", and waits for a line.  Then asks RATE times a
 * second, on one connection after the other, at random distances (a Poisson process,
 * the same each time).  A connection asks one thing at a time: what is due while it
 * waits for an answer waits too, and its time runs.  Tells at the end, in microseconds:
 *
 *     asked: 60000 answered: 60000 seconds: 3.000
 *     latency: 50%=81.2 90%=110.0 99%=202.1 99.9%=410.7 max=811.0
 *     late: 50%=8.1 99%=60.3
 *
 * "late" is how long after they were due those requests were sent whose connection
 * was free: this program's own part of the latency.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Handshakes that are open at a time: more would fill the server's queue. */
#define OPENING 64
#define EVENTS 256
/* After the last request is due. */
#define PATIENCE 2.0
#define NOBODY UINT32_MAX

struct connection {
    SSL *ssl;
    int fd;
    int is_busy;
    uint32_t first, last; /* requests that are due, but wait for the one before; NOBODY if none */
    uint32_t request;     /* the one that is being answered */
    long missing;         /* bytes of its answer, -1 while its head is not there */
    size_t filled;        /* of the head so far */
    char head[2048];
};

static struct connection *connections;
static double *due, *latency, *late;
static uint32_t *behind; /* the next of the requests that wait on the same connection */
static uint32_t asked, answered, sent_at_once;
static char request[512];
static int request_length;
static double epoch;

static void fail(const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    fprintf(stderr, "open_loop: %s: %s\n", what, reason ? reason : strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

/* xorshift64*: the same requests at the same times for every server. */
static double random_distance(double rate)
{
    static uint64_t state = 0x9E3779B97F4A7C15;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    double part = ((state * 0x2545F4914F6CDD1D) >> 11) / 9007199254740992.0;
    return -log(1.0 - part) / rate;
}

static void watch(int epoll, struct connection *it, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = it};
    if (epoll_ctl(epoll, operation, it->fd, &event) < 0)
        fail("epoll_ctl");
}

static void begin(int epoll, struct connection *it, SSL_CTX *context, int port)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1;

    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    it->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (it->fd < 0)
        fail("socket");
    setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(it->fd, (struct sockaddr *) &server, sizeof server) < 0 && errno != EINPROGRESS)
        fail("connect");
    it->ssl = SSL_new(context);
    if (it->ssl == NULL || !SSL_set_fd(it->ssl, it->fd))
        fail("SSL_new");
    it->first = it->last = NOBODY;
    SSL_set_connect_state(it->ssl);
    watch(epoll, it, EPOLLOUT, EPOLL_CTL_ADD);
}

/* Whether it is done. */
static int shake_hands(int epoll, struct connection *it)
{
    int result = SSL_do_handshake(it->ssl);

    if (result == 1) {
        watch(epoll, it, EPOLLIN, EPOLL_CTL_MOD);
        return 1;
    }
    switch (SSL_get_error(it->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        watch(epoll, it, EPOLLIN, EPOLL_CTL_MOD);
        return 0;
    case SSL_ERROR_WANT_WRITE:
        watch(epoll, it, EPOLLOUT, EPOLL_CTL_MOD);
        return 0;
    }
    fail("handshake");
    return 0;
}

static void open_all(int epoll, int count, SSL_CTX *context, int port)
{
    struct epoll_event events[EVENTS];
    int begun = 0, done = 0;

    while (done < count) {
        for (; begun < count && begun - done < OPENING; begun++)
            begin(epoll, &connections[begun], context, port);
        int ready = epoll_wait(epoll, events, EVENTS, 10000);
        if (ready == 0) {
            errno = ETIMEDOUT;
            fail("opening connections");
        }
        for (int i = 0; i < ready; i++) {
            struct connection *it = events[i].data.ptr;
            /* Those that are open may be given tickets meanwhile. */
            if (!SSL_is_init_finished(it->ssl))
                done += shake_hands(epoll, it);
            else if (SSL_read(it->ssl, it->head, 1) >= 0)
                fail("a connection that ended or spoke first");
        }
    }
}

static void send_request(struct connection *it, uint32_t which)
{
    it->is_busy = 1;
    it->request = which;
    it->missing = -1;
    it->filled = 0;
    /* A request fits any socket buffer: it is alone on its connection. */
    if (SSL_write(it->ssl, request, request_length) != request_length)
        fail("sending a request");
}

static void ask(struct connection *it, uint32_t which)
{
    behind[which] = NOBODY;
    if (!it->is_busy) {
        send_request(it, which);
        late[sent_at_once++] = now() - epoch - due[which];
    } else if (it->first == NOBODY) {
        it->first = it->last = which;
    } else {
        behind[it->last] = which;
        it->last = which;
    }
}

static void finish(struct connection *it)
{
    latency[answered++] = now() - epoch - due[it->request];
    it->is_busy = 0;
    if (it->first != NOBODY) {
        uint32_t next = it->first;
        it->first = behind[next];
        send_request(it, next);
    }
}

/* Understands an answer with a Content-Length, in whatever pieces. */
static void take(struct connection *it, const char *bytes, long count)
{
    if (it->missing < 0) {
        memcpy(it->head + it->filled, bytes, count);
        it->filled += count;
        it->head[it->filled] = 0;
        char *end = strstr(it->head, "\r\n\r\n");
        if (end == NULL) {
            if (it->filled == sizeof it->head - 1)
                fail("a head that is too long");
            return;
        }
        char *length = strcasestr(it->head, "\r\nContent-Length:");
        if (strncmp(it->head, "HTTP/1.1 200 ", 13) != 0 || length == NULL || length > end) {
            fprintf(stderr, "open_loop: not the answer: %.80s\n", it->head);
            exit(1);
        }
        it->missing = atol(length + 17) - (it->head + it->filled - end - 4);
    } else {
        it->missing -= count;
    }
    if (it->missing < 0)
        fail("an answer that is too long");
    if (it->missing == 0)
        finish(it);
}

static void receive(struct connection *it)
{
    static char buffer[16384];

    for (;;) {
        /* A head may not be read beyond what it has room for. */
        int room = it->missing < 0 ? (int) (sizeof it->head - 1 - it->filled) : (int) sizeof buffer;
        int count = SSL_read(it->ssl, buffer, room);
        if (count > 0) {
            if (!it->is_busy)
                fail("an answer to no request");
            take(it, buffer, count);
            continue;
        }
        if (SSL_get_error(it->ssl, count) == SSL_ERROR_WANT_READ)
            return;
        fail("an answer that ended early");
    }
}

static void run(int epoll, int count, double seconds)
{
    struct epoll_event events[EVENTS];
    uint32_t next = 0;

    epoch = now();
    for (;;) {
        double at = now() - epoch;
        for (; next < asked && due[next] <= at; next++)
            ask(&connections[next % count], next);
        if (answered == asked || at > seconds + PATIENCE)
            return;
        double wait = next < asked ? due[next] - (now() - epoch) : 0.1;
        struct timespec timeout = {0, wait > 0 ? (long) (fmin(wait, 0.5) * 1e9) : 0};
        int ready = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
        if (ready < 0 && errno != EINTR)
            fail("epoll_pwait2");
        for (int i = 0; i < ready; i++)
            receive(events[i].data.ptr);
    }
}

static int ascending(const void *one, const void *other)
{
    double a = *(const double *) one, b = *(const double *) other;
    return (a > b) - (a < b);
}

static double percentile(const double *sorted, uint32_t count, double part)
{
    uint32_t place = (uint32_t) ceil(part * count);
    return count ? sorted[place ? place - 1 : 0] * 1e6 : 0.0;
}

static void tell(double seconds)
{
    qsort(latency, answered, sizeof *latency, ascending);
    qsort(late, sent_at_once, sizeof *late, ascending);
    printf("asked: %u answered: %u seconds: %.3f\n", asked, answered, seconds);
    printf("latency: 50%%=%.1f 90%%=%.1f 99%%=%.1f 99.9%%=%.1f max=%.1f\n",
           percentile(latency, answered, 0.5), percentile(latency, answered, 0.9),
           percentile(latency, answered, 0.99), percentile(latency, answered, 0.999),
           percentile(latency, answered, 1.0));
    printf("late: 50%%=%.1f 99%%=%.1f\n", percentile(late, sent_at_once, 0.5),
           percentile(late, sent_at_once, 0.99));
}

static void plan(double rate, double seconds)
{
    size_t room = (size_t) (rate * seconds * 1.2) + 1000;

    due = malloc(room * sizeof *due);
    for (double at = random_distance(rate); at < seconds && asked < room; at += random_distance(rate))
        due[asked++] = at;
    latency = malloc(asked * sizeof *latency + 1);
    late = malloc(asked * sizeof *late + 1);
    behind = malloc(asked * sizeof *behind + 1);
    if (due == NULL || latency == NULL || late == NULL || behind == NULL)
        fail("memory");
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: open_loop PORT PATH CONNECTIONS RATE SECONDS CA_FILE\n");
        return 2;
    }
    int count = atoi(argv[3]), epoll = epoll_create1(EPOLL_CLOEXEC);
    double seconds = atof(argv[5]);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (context == NULL || !SSL_CTX_load_verify_locations(context, argv[6], NULL))
        fail("CA_FILE");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    /* Ten thousand idle connections need no buffers. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    /* Wake up when a request is due, not 50 microseconds later. */
    prctl(PR_SET_TIMERSLACK, 1);
    connections = calloc(count, sizeof *connections);
    if (connections == NULL)
        fail("memory");
    request_length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", argv[2]);
    plan(atof(argv[4]), seconds);
    open_all(epoll, count, context, atoi(argv[1]));
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;
    double began = now();
    run(epoll, count, seconds);
    tell(now() - began);
    return 0;
}
