/* Makes wrk ask for names, and proves that it got them.
 *
 * wrk asks for the host of its URL.  Put before libssl by LD_PRELOAD, this makes
 * each new connection ask for the next line of the file that ASK_FOR_NAMES names,
 * around and around; an empty line asks for no name.  It looks whether the
 * server's certificate is for that name, and tells at the end:
 *
 *     names: 4819 wrong: 0
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ssl;
struct x509;
long SSL_ctrl(struct ssl *ssl, int command, long number, void *argument);
int SSL_in_before(const struct ssl *ssl);
int SSL_set_ex_data(struct ssl *ssl, int index, void *data);
void *SSL_get_ex_data(const struct ssl *ssl, int index);
struct x509 *SSL_get1_peer_certificate(const struct ssl *ssl);
int X509_check_host(struct x509 *certificate, const char *name, size_t length, unsigned flags, char **found);
void X509_free(struct x509 *certificate);

#define SET_NAME 55 /* SSL_CTRL_SET_TLSEXT_HOSTNAME */
#define APPLICATION 0 /* the index of the data that OpenSSL leaves to the application; wrk has none */

static char **names;
static size_t count, next;
static long asked, wrong;

__attribute__((constructor)) static void read_names(void)
{
    const char *path = getenv("ASK_FOR_NAMES");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    char *line = NULL;
    size_t size = 0;

    if (file == NULL)
        return;
    while (getline(&line, &size, file) >= 0) {
        line[strcspn(line, "\n")] = 0;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = strdup(line);
    }
    free(line);
    fclose(file);
}

static int is_for(const struct ssl *ssl, const char *name)
{
    struct x509 *certificate = SSL_get1_peer_certificate(ssl);
    int is = certificate != NULL && X509_check_host(certificate, name, 0, 0, NULL) == 1;

    X509_free(certificate);
    return is;
}

int SSL_connect(struct ssl *ssl)
{
    static int (*connect)(struct ssl *);

    if (connect == NULL)
        connect = (int (*)(struct ssl *)) dlsym(RTLD_NEXT, "SSL_connect");
    /* wrk has just set its own name, and will again, when the hello is on its way. */
    if (count && SSL_in_before(ssl)) {
        char *name = names[next++ % count];
        SSL_ctrl(ssl, SET_NAME, 0, *name ? name : NULL);
        SSL_set_ex_data(ssl, APPLICATION, name);
    }
    int result = connect(ssl);
    if (count && result == 1) {
        char *name = SSL_get_ex_data(ssl, APPLICATION);
        asked++;
        wrong += *name && !is_for(ssl, name);
    }
    return result;
}

__attribute__((destructor)) static void tell(void)
{
    if (count)
        fprintf(stderr, "names: %ld wrong: %ld\n", asked, wrong);
}
