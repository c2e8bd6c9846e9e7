/* tests/flux/test-safetensors.c: reading, refusing and writing safetensors.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "flux/error.h"
#include "flux/files/safetensors-private.h"
#include "tests/testdata.h"

static char *
make_folder (void)
{
  return g_dir_make_tmp ("flux-safetensors-XXXXXX", NULL);
}

static void
remove_folder (char *folder)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);

    g_assert_cmpint (g_remove (path), ==, 0);
  }
  g_dir_close (dir);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
  g_free (folder);
}

/* A file of this header and n bytes 0, 1, 2, ... of data. */
static char *
put (const char *folder, const char *name, const char *header, gsize n)
{
  char *path = g_build_filename (folder, name, NULL);
  GString *bytes = g_string_new (NULL);
  guint64 length = GUINT64_TO_LE (strlen (header));

  g_string_append_len (bytes, (char *)&length, sizeof length);
  g_string_append (bytes, header);
  for (gsize i = 0; i < n; i++)
    g_string_append_c (bytes, (char)i);
  g_assert_true (g_file_set_contents (path, bytes->str, bytes->len, NULL));
  g_string_free (bytes, TRUE);
  return path;
}

static void
assert_fails (const char *path, int code, const char *pattern)
{
  g_autoptr (GError) error = NULL;
  FluxSafetensors *st = flux_safetensors_open (path, &error);

  g_assert_null (st);
  g_assert_error (error, FLUX_ERROR, code);
  if (!g_pattern_match_simple (pattern, error->message))
    g_error ("'%s' does not match '%s'", error->message, pattern);
  g_assert_nonnull (strstr (error->message, path));
}

static void
test_reads_what_the_header_says (void)
{
  char *folder = make_folder ();
  g_autofree char *path = put (folder, "a.safetensors",
      "{\"b\":{\"shape\":[],\"data_offsets\":[6,7],\"dtype\":\"U8\"},\n"
      "\"__metadata__\":{\"format\":\"pt\",\"q\\u00e9\\\"\":\"\\ud83d\\ude00\\n\"},"
      "\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[6,6]},"
      "\"a\":{\"dtype\":\"BF16\",\"shape\":[3,1],\"data_offsets\":[0,6],"
      "\"more\":[{\"x\":[1.5e3,null,true]}]}}   ",
      7);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxSafetensors) st = flux_safetensors_open (path, &error);
  const FluxTensor *t;

  g_assert_no_error (error);
  g_assert_cmpstr (flux_safetensors_get_path (st), ==, path);
  g_assert_cmpuint (flux_safetensors_get_n_tensors (st), ==, 3);
  g_assert_cmpstr (flux_safetensors_get_nth (st, 0)->name, ==, "a");
  g_assert_cmpstr (flux_safetensors_get_nth (st, 1)->name, ==, "e");
  g_assert_cmpstr (flux_safetensors_get_nth (st, 2)->name, ==, "b");
  g_assert_cmpstr (flux_safetensors_get_metadata (st, "format"), ==, "pt");
  g_assert_cmpstr (flux_safetensors_get_metadata (st, "qé\""), ==, "😀\n");
  g_assert_null (flux_safetensors_get_metadata (st, "absent"));

  t = flux_safetensors_lookup (st, "a");
  g_assert_cmpint (t->dtype, ==, FX_BF16);
  g_assert_cmpuint (t->n_dims, ==, 2);
  g_assert_cmpint (t->dims[0], ==, 3);
  g_assert_cmpint (t->dims[1], ==, 1);
  g_assert_cmpuint (t->n_elements, ==, 3);
  g_assert_cmpmem (t->data, t->n_bytes, "\0\1\2\3\4\5", 6);
  t = flux_safetensors_lookup (st, "b");
  g_assert_cmpuint (t->n_dims, ==, 0);
  g_assert_cmpmem (t->data, t->n_bytes, "\6", 1);
  g_assert_cmpuint (flux_safetensors_lookup (st, "e")->n_bytes, ==, 0);
  g_assert_null (flux_safetensors_lookup (st, "c"));
  g_assert_null (flux_safetensors_lookup (st, "__metadata__"));
  remove_folder (folder);
}

static void
test_requires_a_shape (void)
{
  char *folder = make_folder ();
  g_autofree char *path = put (folder, "a.safetensors",
      "{\"w\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}", 12);
  g_autoptr (FluxSafetensors) st = flux_safetensors_open (path, NULL);
  const FluxTensor *t = flux_safetensors_lookup (st, "w");
  g_autoptr (GError) error = NULL;
  const gint64 any = -1, two = 2, three = 3;

  g_assert_true (flux_safetensors_require (st, "w", &error, 2, two, three) == t);
  g_assert_true (flux_safetensors_require (st, "w", &error, 2, any, three) == t);
  g_assert_no_error (error);
  g_assert_null (flux_safetensors_require (st, "w", &error, 2, any, two));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_assert_nonnull (strstr (error->message, "is [2, 3] where [any, 2] is expected"));
  g_clear_error (&error);
  g_assert_null (flux_safetensors_require (st, "w", &error, 1, any));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_error (&error);
  g_assert_null (flux_safetensors_require (st, "v", &error, 2, two, three));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "'v'"));
  g_assert_nonnull (strstr (error->message, "a.safetensors"));
  remove_folder (folder);
}

#define U8(name, shape, from, to)                                                        \
  "\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to  \
  "]}"

static const struct {
  const char *header; /* with four bytes of data */
  const char *message;
} lies[] = {
    {"{" U8 ("a", "[2]", 0, 2) "," U8 ("a", "[2]", 2, 4) "}", "*two entries*'a'*"},
    {"{" U8 ("a", "[2]", 0, 2) "," U8 ("\\u0061", "[2]", 2, 4) "}", "*two entries*'a'*"},
    {"{" U8 ("a", "[3]", 0, 3) "," U8 ("b", "[2]", 2, 4) "}", "*'b' overlaps*"},
    {"{" U8 ("a", "[4]", 0, 4) "," U8 ("b", "[4]", 0, 4) "}", "*'b' overlaps*"},
    {"{" U8 ("a", "[1]", 0, 1) "," U8 ("b", "[2]", 2, 4) "}", "*hole before 'b'*"},
    {"{" U8 ("a", "[3]", 1, 4) "}", "*hole before 'a'*"},
    {"{" U8 ("a", "[3]", 0, 3) "}", "*1 bytes follow*"},
    {"{}", "*4 bytes follow*"},
    {"{" U8 ("a", "[5]", 0, 5) "}", "*cut short*"},
    {"{" U8 ("a", "[5]", 0, 4) "}", "*'a' needs 5 bytes*"},
    {"{" U8 ("a", "[4]", 4, 0) "}", "*'a' needs 4 bytes*"},
    {"{" U8 ("a", "[0]", 4, 0) "}", "*'a' needs 0 bytes*"},
    {"{" U8 ("a", "[-4]", 0, 4) "}", "*whole number*"},
    {"{" U8 ("a", "[4.0]", 0, 4) "}", "*not whole*"},
    {"{" U8 ("a", "[4e0]", 0, 4) "}", "*not whole*"},
    {"{" U8 ("a", "[04]", 0, 4) "}", "*starts with 0*"},
    {"{" U8 ("a", "[4;]", 0, 4) "}", "*comma or a closing bracket*"},
    {"{" U8 ("a", "[18446744073709551620]", 0, 4) "}", "*too large*"},
    {"{" U8 ("a", "[9223372036854775808]", 0, 4) "}", "*too large*"},
    {"{" U8 ("a", "[4294967296,4294967296,4]", 0, 4) "}", "*shape*'a' is too large*"},
    {"{" U8 ("a", "[1,1,1,1,1,1,1,1,4]", 0, 4) "}", "*'a' has more than 8*"},
    {"{" U8 ("a", "[4]", 0, 18446744073709551615) "}", "*too large*"},
    {"{" U8 ("a", "[4]", 9223372036854775803, 9223372036854775807) "}", "*hole*"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[8],\"data_offsets\":[0,4]}}",
        "*'a' has the unknown type 'F4'*"},
    {"{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", "*string is missing*"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", "*'a' lacks*"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4]}}", "*fewer*"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", "*more than*"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
        "*'a' says 'dtype' twice*"},
    {"{\"a\":[]}", "*object*"},
    {"{\"__metadata__\":{\"x\":1}," U8 ("a", "[4]", 0, 4) "}", "*string is missing*"},
    {"{\"__metadata__\":{\"x\":\"\",\"x\":\"\"}}", "*says 'x' twice*"},
    {"{" U8 ("a", "[4]", 0, 4) "} x", "*follows the end*"},
    {"{" U8 ("a", "[4]", 0, 4) ",}", "*string is missing*"},
    {"{" U8 ("a", "[4]", 0, 4), "*closing bracket*"},
    {"{" U8 ("a\\u0000", "[4]", 0, 4) "}", "*malformed*"},
    {"{" U8 ("a\\ud800", "[4]", 0, 4) "}", "*malformed*"},
    {"{" U8 ("a\\ud800\\u0041", "[4]", 0, 4) "}", "*malformed*"},
    {"{" U8 ("a\t", "[4]", 0, 4) "}", "*control character*"},
    {"{" U8 ("a\xff", "[4]", 0, 4) "}", "*not UTF-8*"},
    {" {" U8 ("a", "[4]", 0, 4) "}", "*does not start with '{'*"},
    {"{/**/" U8 ("a", "[4]", 0, 4) "}", "*string is missing*"},
    {"{\"a", "*does not end*"},
};

static void
test_refuses_lies (void)
{
  char *folder = make_folder ();

  for (guint i = 0; i < G_N_ELEMENTS (lies); i++) {
    g_autofree char *path = put (folder, "lie.safetensors", lies[i].header, 4);

    assert_fails (path, FLUX_ERROR_FORMAT, lies[i].message);
  }
  remove_folder (folder);
}

static void
test_refuses_deep_nesting (void)
{
  char *folder = make_folder ();
  GString *header = g_string_new ("{\"a\":{\"x\":");
  g_autofree char *path = NULL;

  for (guint i = 0; i < 1000000; i++)
    g_string_append (header, i % 2 ? "[" : "{\"\":");
  path = put (folder, "deep.safetensors", header->str, 0);
  assert_fails (path, FLUX_ERROR_FORMAT, "*nested too deeply*");
  g_string_free (header, TRUE);
  remove_folder (folder);
}

/* A download that stopped is told from a file of another kind. */
static void
test_tells_cut_short_from_foreign (void)
{
  static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:";
  char *folder = make_folder (), *bytes;
  g_autofree char *path = put (folder, "a.safetensors", "{" U8 ("a", "[4]", 0, 4) "}", 4);
  guint64 huge = GUINT64_TO_LE (100000001);
  gsize length;

  g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
  for (gsize n = 0; n < length; n++) {
    g_assert_true (g_file_set_contents (path, bytes, n, NULL));
    assert_fails (path, FLUX_ERROR_FORMAT, "*is cut short: it has * bytes and needs *");
  }
  memcpy (bytes, &huge, sizeof huge);
  g_assert_true (g_file_set_contents (path, bytes, length, NULL));
  assert_fails (path, FLUX_ERROR_FORMAT, "*is not a valid*longer than 100 MB*");
  g_assert_true (g_file_set_contents (path, "\x89PNG\r\n\x1a\n....", -1, NULL));
  assert_fails (path, FLUX_ERROR_FORMAT, "*is not a valid*");
  g_assert_true (g_file_set_contents (path, lfs, -1, NULL));
  assert_fails (path, FLUX_ERROR_FORMAT, "*Git LFS pointer*git lfs pull*");
  g_free (bytes);
  remove_folder (folder);
}

static void
test_refuses_what_is_no_file (void)
{
  char *folder = make_folder ();
  g_autofree char *path = g_build_filename (folder, "a.safetensors", NULL);

  assert_fails (path, FLUX_ERROR_NOT_FOUND, "Could not read '*No such file*");
  g_assert_cmpint (mkfifo (path, 0600), ==, 0);
  assert_fails (path, FLUX_ERROR_READ, "*not a regular file*");
  remove_folder (folder);
}

/* Each of the files can change it, by its size or by a millisecond. */
static void
check_stamp (const char *folder, const char *one, const char *two)
{
  const char *const paths[] = {one, two};

  for (guint i = 0; i < 2; i++) {
    g_autoptr (FluxSafetensors) before = flux_safetensors_open (folder, NULL);
    g_autofree char *a = flux_safetensors_get_stamp (before), *b = NULL, *c = NULL;
    g_autoptr (FluxSafetensors) same = flux_safetensors_open (folder, NULL);
    g_autoptr (FluxSafetensors) after = NULL;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
    struct stat st;

    b = flux_safetensors_get_stamp (same);
    g_assert_cmpstr (a, ==, b);
    g_assert_cmpint (stat (paths[i], &st), ==, 0);
    times[1] = st.st_mtim;
    times[1].tv_nsec = (times[1].tv_nsec + 1000000) % 1000000000;
    g_assert_cmpint (utimensat (AT_FDCWD, paths[i], times, 0), ==, 0);
    after = flux_safetensors_open (folder, NULL);
    c = flux_safetensors_get_stamp (after);
    g_assert_cmpstr (a, !=, c);
    g_assert_cmpint (strlen (a), ==, strlen (c));
  }
}

static void
test_joins_shards (void)
{
  char *folder = make_folder ();
  g_autofree char *one = put (folder, "s-1.safetensors",
      "{" U8 ("b", "[2]", 0, 2) "," U8 ("a", "[1]", 2, 3) "}", 3);
  g_autofree char *two = put (folder, "s-2.safetensors",
      "{\"__metadata__\":{\"k\":\"v\"}," U8 ("c", "[4]", 0, 4) "}", 4);
  g_autofree char *index =
      g_build_filename (folder, "model.safetensors.index.json", NULL);
  static const struct {
    const char *map, *message;
    int code;
  } cases[] = {
      {"{\"metadata\":{\"total_size\":7},\"weight_map\":{\"c\":\"s-2.safetensors\","
       "\"a\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\"}}"},
      {"{\"weight_map\":{\"c\":\"../s-2.safetensors\"}}", "*not a file beside*",
          FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"c\":\"/etc/passwd\"}}", "*not a file beside*",
          FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"c\":\"x\\\\s-2.safetensors\"}}", "*not a file beside*",
          FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"c\":\"..\"}}", "*not a file beside*", FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"c\":\"\"}}", "*not a file beside*", FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"c\":\"s-1.safetensors\"}}", "*'c' is in 's-1*but it is not*",
          FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"a\":\"s-1.safetensors\",\"a\":\"s-1.safetensors\"}}",
          "*a tensor twice*", FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{\"a\":3}}", "*string is missing*", FLUX_ERROR_FORMAT},
      {"{\"weight_map\":{},\"weight_map\":{}}", "*two weight_maps*", FLUX_ERROR_FORMAT},
      {"{\"weights\":{}}", "*no weight_map*", FLUX_ERROR_FORMAT},
      {"[]", "*object*", FLUX_ERROR_FORMAT},
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_assert_true (g_file_set_contents (index, cases[i].map, -1, NULL));
    if (cases[i].message == NULL) {
      g_autoptr (GError) error = NULL;
      g_autoptr (FluxSafetensors) st = flux_safetensors_open (folder, &error);

      g_assert_no_error (error);
      g_assert_cmpstr (flux_safetensors_get_path (st), ==, index);
      g_assert_cmpuint (flux_safetensors_get_n_tensors (st), ==, 3);
      g_assert_cmpstr (flux_safetensors_get_nth (st, 0)->name, ==, "b");
      g_assert_cmpstr (flux_safetensors_get_nth (st, 2)->name, ==, "c");
      g_assert_cmpstr (flux_safetensors_get_metadata (st, "k"), ==, "v");
      check_stamp (folder, one, two);
      g_assert_cmpmem (flux_safetensors_lookup (st, "a")->data, 1, "\2", 1);
    } else {
      assert_fails (index, cases[i].code, cases[i].message);
    }
  }
  g_assert_true (g_file_set_contents (
      index, "{\"weight_map\":{\"z\":\"s-3.safetensors\"}}", -1, NULL));
  {
    g_autoptr (GError) error = NULL;

    g_assert_null (flux_safetensors_open (index, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND);
    g_assert_nonnull (strstr (error->message, "s-3.safetensors"));
  }
  remove_folder (folder);
}

static void
test_finds_the_file_of_a_folder (void)
{
  char *folder = make_folder ();
  static const char *const names[] = {"x.safetensors", "pytorch_lora_weights.safetensors",
      "model.safetensors", "diffusion_pytorch_model.safetensors"};

  assert_fails (folder, FLUX_ERROR_NOT_FOUND, "There is no .safetensors file*");
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = put (folder, names[i], "{}", 0);
    g_autoptr (FluxSafetensors) st = flux_safetensors_open (folder, NULL);

    g_assert_cmpstr (flux_safetensors_get_path (st), ==, path);
  }
  for (guint i = 1; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = g_build_filename (folder, names[i], NULL);

    g_remove (path);
  }
  g_free (put (folder, "y.safetensors", "{}", 0));
  assert_fails (folder, FLUX_ERROR_NOT_FOUND, "*holds 2 .safetensors files*");
  remove_folder (folder);
}

/* Old writers padded nothing: elements lie at odd addresses. */
static void
test_converts_unaligned_data (void)
{
  char *folder = make_folder ();
  enum { N = 2051 };
  float values[N], got[N];
  g_autofree char *path = g_build_filename (folder, "odd.safetensors", NULL);

  for (guint i = 0; i < N; i++)
    values[i] = i * 0.37f - 11;
  for (guint pad = 0; pad < 8; pad++) {
    g_autoptr (GString) bytes = g_string_new (NULL);
    g_autoptr (GError) error = NULL;
    g_autoptr (FluxSafetensors) st = NULL;
    guint64 length;

    g_string_append_len (bytes, "\0\0\0\0\0\0\0\0", 8);
    g_string_append_printf (bytes,
        "{\"f\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[0,%d]},"
        "\"i\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}}%*s",
        N, 4 * N, 4 * N, 4 * N + 1, (int)pad, "");
    length = GUINT64_TO_LE (bytes->len - 8);
    memcpy (bytes->str, &length, 8);
    g_string_append_len (bytes, (char *)values, sizeof values);
    g_string_append_c (bytes, 0);
    g_assert_true (g_file_set_contents (path, bytes->str, bytes->len, NULL));
    st = flux_safetensors_open (path, &error);
    g_assert_no_error (error);
    memset (got, 0, sizeof got);
    g_assert_true (flux_tensor_to_f32 (flux_safetensors_lookup (st, "f"), got, &error));
    g_assert_cmpmem (got, sizeof got, values, sizeof values);
    g_assert_false (flux_tensor_to_f32 (flux_safetensors_lookup (st, "i"), got, &error));
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  }
  remove_folder (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func (
      "/safetensors/reads-what-the-header-says", test_reads_what_the_header_says);
  g_test_add_func ("/safetensors/requires-a-shape", test_requires_a_shape);
  g_test_add_func ("/safetensors/refuses-lies", test_refuses_lies);
  g_test_add_func ("/safetensors/refuses-deep-nesting", test_refuses_deep_nesting);
  g_test_add_func (
      "/safetensors/tells-cut-short-from-foreign", test_tells_cut_short_from_foreign);
  g_test_add_func ("/safetensors/refuses-what-is-no-file", test_refuses_what_is_no_file);
  g_test_add_func ("/safetensors/joins-shards", test_joins_shards);
  g_test_add_func (
      "/safetensors/finds-the-file-of-a-folder", test_finds_the_file_of_a_folder);
  g_test_add_func ("/safetensors/converts-unaligned-data", test_converts_unaligned_data);
  return g_test_run ();
}
