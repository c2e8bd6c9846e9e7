/* tests/flux/test-weights-cache-bad.c: quantised weights that cannot be read or kept.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/flux/weights-cache-bench.h"

typedef void (*Damage) (char **bytes, gsize *length);

static void
flip_a_bit (char **bytes, gsize *length)
{
  (*bytes)[*length / 2] ^= 1;
}

static void
flip_a_bit_of_the_sum (char **bytes, gsize *length)
{
  (*bytes)[*length - 1] ^= 1;
}

static void
swap_words (char **bytes, gsize *length)
{
  char *p = *bytes + *length / 2 / 8 * 8, word[8];

  memcpy (word, p, 8);
  memcpy (p, p + 32, 8);
  memcpy (p + 32, word, 8);
}

static void
truncate_it (char **bytes, gsize *length)
{
  *length -= 100;
}

static void
empty_it (char **bytes, gsize *length)
{
  *length = 0;
}

static void
rename_the_layout (char **bytes, gsize *length)
{
  char *p = g_strstr_len (*bytes + 8, 400, "\"layout\":\"");

  g_assert_nonnull (p);
  p[10] = p[10] == '0' ? '1' : '0';
}

static void
rename_the_model (char **bytes, gsize *length)
{
  char *p = g_strstr_len (*bytes + 8, 400, "\"model\":\"");

  g_assert_nonnull (p);
  p[9] = p[9] == '0' ? '1' : '0';
}

static void
write_garbage (char **bytes, gsize *length)
{
  memset (*bytes, 0xa5, *length);
}

/* Made again, with the same bits and a warning, and good from then on. */
static void
test_damaged_entry_is_replaced (void)
{
  static const Damage damages[] = {flip_a_bit, flip_a_bit_of_the_sum, swap_words,
      truncate_it, empty_it, rename_the_layout, rename_the_model, write_garbage};
  g_autoptr (GBytes) plain = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_NF4_DOUBLE, FALSE);
  g_bytes_unref (load (&f, FX_Q_NF4_DOUBLE, TRUE));
  for (gsize i = 0; i < G_N_ELEMENTS (damages); i++) {
    g_auto (GStrv) names = list (&f);
    g_autoptr (GBytes) again = NULL, then = NULL;
    g_autofree char *bytes = NULL;
    gsize length;

    g_assert_cmpuint (g_strv_length (names), ==, 1);
    g_assert_true (g_file_get_contents (names[0], &bytes, &length, NULL));
    damages[i](&bytes, &length);
    g_assert_true (g_file_set_contents (names[0], bytes, (gssize)length, NULL));
    again = load (&f, FX_Q_NF4_DOUBLE, TRUE);
    g_assert_false (f.bench.loader.is_cached);
    g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_FORMAT);
    g_assert_nonnull (strstr (f.cache->warning->message, names[0]));
    g_clear_error (&f.cache->warning);
    ASSERT_EQUAL (again, plain);
    then = load (&f, FX_Q_NF4_DOUBLE, TRUE);
    g_assert_true (f.bench.loader.is_cached);
    g_assert_null (f.cache->warning);
    ASSERT_EQUAL (then, plain);
  }
  fixture_clear (&f);
}

/* Loaded all the same; nothing half written stays. */
static void
test_full_disk_is_a_warning (void)
{
  const struct rlimit limit = {20000, RLIM_INFINITY};
  struct rlimit before;
  g_autoptr (GBytes) plain = NULL, again = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_INT8, FALSE);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &before);
  setrlimit (RLIMIT_FSIZE, &limit);
  again = load (&f, FX_Q_INT8, TRUE);
  setrlimit (RLIMIT_FSIZE, &before);
  ASSERT_EQUAL (again, plain);
  g_assert_nonnull (f.cache->warning);
  g_test_message ("%s", f.cache->warning->message);
  g_assert_nonnull (strstr (f.cache->warning->message, "weights-cache"));
  {
    g_auto (GStrv) names = list (&f);
    g_assert_null (names[0]);
  }
  fixture_clear (&f);
}

/* Said so, and replaced by one that can. Root may read anything, and gives that up. */
static void
test_entry_that_cannot_be_read_is_replaced (void)
{
  const uid_t nobody = 65534, user = geteuid ();
  g_auto (GStrv) names = NULL;
  Fixture f;

  fixture_init (&f);
  if (user == 0 &&
      (chown (f.cache->dir, nobody, (gid_t)-1) != 0 || seteuid (nobody) != 0)) {
    g_test_skip ("root that cannot be another user");
    fixture_clear (&f);
    return;
  }
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  names = list (&f);
  g_assert_cmpint (g_chmod (names[0], 0), ==, 0);
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_READ);
  g_assert_nonnull (strstr (f.cache->warning->message, names[0]));
  g_assert_null (strstr (f.cache->warning->message, "damaged"));
  g_clear_error (&f.cache->warning);
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  g_assert_true (f.bench.loader.is_cached);
  g_assert_null (f.cache->warning);
  g_assert_cmpint (seteuid (user), ==, 0);
  fixture_clear (&f);
}

static void
test_folder_that_cannot_be_is_a_warning (void)
{
  g_autoptr (GBytes) plain = NULL, again = NULL;
  Fixture f;

  fixture_init (&f);
  plain = load (&f, FX_Q_NF4, FALSE);
  g_rmdir (f.cache->dir);
  g_free (f.cache->dir);
  f.cache->dir = g_build_filename (f.bench.path, "below-a-file", NULL);
  again = load (&f, FX_Q_NF4, TRUE);
  ASSERT_EQUAL (again, plain);
  g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_WRITE);
  g_assert_null (strstr (f.cache->warning->message, "space"));
  fixture_clear (&f);
}

static void
test_folder_in_the_place_of_an_entry_is_a_warning (void)
{
  g_auto (GStrv) names = NULL;
  Fixture f;

  fixture_init (&f);
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  names = list (&f);
  g_remove (names[0]);
  g_assert_cmpint (g_mkdir (names[0], 0700), ==, 0);
  g_bytes_unref (load (&f, FX_Q_NF4, TRUE));
  g_assert_error (f.cache->warning, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (
      strstr (f.cache->warning->message, "is a folder. Remove it, or set "));
  fixture_clear (&f);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
#define ADD(name, func) g_test_add_func ("/weights-cache-bad/" name, func)
  ADD ("damaged-entry-is-replaced", test_damaged_entry_is_replaced);
  ADD ("entry-that-cannot-be-read-is-replaced",
      test_entry_that_cannot_be_read_is_replaced);
  ADD ("full-disk-is-a-warning", test_full_disk_is_a_warning);
  ADD ("folder-that-cannot-be-is-a-warning", test_folder_that_cannot_be_is_a_warning);
  ADD ("folder-in-the-place-of-an-entry-is-a-warning",
      test_folder_in_the_place_of_an_entry_is_a_warning);
  return g_test_run ();
}
