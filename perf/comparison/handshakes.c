/* Makes wrk's handshakes full ones, if asked to, and proves what they were.
 *
 * wrk uses one SSL object per connection again and again.  SSL_clear() keeps the
 * session of the last connection in it, so from the second on, wrk resumes.  Put
 * before libssl by LD_PRELOAD, this takes the session away each time when
 * FORGET_SESSIONS is in the environment, counts what kind each handshake was, and
 * tells at the end:
 *
 *     handshakes: 4819 resumed: 0
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

struct ssl;
int SSL_is_init_finished(const struct ssl *ssl);
int SSL_session_reused(const struct ssl *ssl);
int SSL_set_session(struct ssl *ssl, void *session);

static long handshakes, resumed;

int SSL_clear(struct ssl *ssl)
{
    static int (*clear)(struct ssl *);

    if (clear == NULL)
        clear = (int (*)(struct ssl *)) dlsym(RTLD_NEXT, "SSL_clear");
    /* libssl clears once more before each handshake: that is not the end of one. */
    if (SSL_is_init_finished(ssl)) {
        handshakes++;
        resumed += SSL_session_reused(ssl);
    }
    int result = clear(ssl);
    if (getenv("FORGET_SESSIONS") != NULL)
        SSL_set_session(ssl, NULL);
    return result;
}

__attribute__((destructor)) static void tell(void)
{
    fprintf(stderr, "handshakes: %ld resumed: %ld\n", handshakes, resumed);
}
