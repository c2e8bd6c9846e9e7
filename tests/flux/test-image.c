/* Pictures decode to the bytes that PIL gives, and damage is an error.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <string.h>

#include "flux/error.h"
#include "flux/image/image.h"

/* tests/reference/make_images.py has the meaning of every field. */
static JsonObject *expected;
static gchar *folder;

static guint8 *
load (const gchar *name, gsize *size)
{
  gchar *path = g_build_filename (folder, name, NULL), *data;
  GError *error = NULL;

  g_file_get_contents (path, &data, size, &error);
  g_assert_no_error (error);
  g_free (path);
  return (guint8 *)data;
}

static FluxImage *
decode (const gchar *name)
{
  GError *error = NULL;
  gsize size;
  guint8 *data = load (name, &size);
  FluxImage *image = flux_image_decode (data, size, name, FLUX_IMAGE_MAX_PIXELS, &error);

  g_assert_no_error (error);
  g_assert_nonnull (image);
  g_free (data);
  return image;
}

static void
assert_key (const FluxImage *image, JsonObject *want, const gchar *field)
{
  gchar *key = flux_image_dup_key (image);

  g_assert_cmpstr (key, ==, json_object_get_string_member (want, field));
  g_free (key);
}

static void
assert_rgb (
    const FluxImage *image, const guint32 *ground, JsonObject *want, const gchar *field)
{
  gsize stride = 3 * image->width + 5;
  guint8 *rgb = g_malloc0 (stride * image->height);
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);

  flux_image_to_rgb (image, ground, rgb, stride);
  for (gint y = 0; y < image->height; y++)
    g_checksum_update (sum, rgb + y * stride, 3 * image->width);
  g_assert_cmpstr (
      g_checksum_get_string (sum), ==, json_object_get_string_member (want, field));
  g_checksum_free (sum);
  g_free (rgb);
}

static void
test_equals_pil (gconstpointer name)
{
  static const gchar *const modes[] = {
      "1", "L", "P", "I;16", "LA", "RGB", "RGBA", "CMYK"};
  static const guint32 white = 0xffffff, colour = 0x204080;
  JsonObject *want = json_object_get_object_member (expected, name);
  FluxImage *image = decode (name);

  g_assert_null (image->warning);
  g_assert_cmpstr (modes[image->mode], ==, json_object_get_string_member (want, "mode"));
  g_assert_cmpint (image->has_alpha, ==, json_object_get_boolean_member (want, "alpha"));
  assert_key (image, want, "key_unturned");
  g_assert_true (flux_image_apply_orientation (image));
  g_assert_cmpint (image->width, ==, json_object_get_int_member (want, "width"));
  g_assert_cmpint (image->height, ==, json_object_get_int_member (want, "height"));
  assert_key (image, want, "key");
  assert_rgb (image, NULL, want, "rgb_opaque");
  assert_rgb (image, &white, want, "rgb_white");
  assert_rgb (image, &colour, want, "rgb_colour");
  flux_image_free (image);
}

/* Every way of cutting a file short is refused, or leaves the same pixels when only the
 * trailer is lost. */
static void
test_truncated (gconstpointer name)
{
  JsonObject *want = json_object_get_object_member (expected, name);
  gsize size, refused = 0;
  guint8 *data = load (name, &size);

  for (gsize cut = 0; cut < size; cut++) {
    GError *error = NULL;
    guint8 *part = g_memdup2 (data, cut); /* for valgrind and ASan to see its end */
    FluxImage *image = flux_image_decode (part, cut, name, 0, &error);

    if (image == NULL) {
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
      g_assert_true (g_str_has_prefix (error->message + 1, name));
      refused++;
    } else {
      assert_key (image, want, "key_unturned");
    }
    g_clear_error (&error);
    flux_image_free (image);
    g_free (part);
  }
  /* Of a PNG the last checksum and IEND may go, of a WebP nothing but padding. */
  g_assert_cmpuint (refused, >=, size - 24);
  g_free (data);
}

static void
test_damaged (void)
{
  static const struct {
    const gchar *name;
    gsize from_end; /* byte to change */
  } cases[] = {{"rgb8.png", 40}, {"palette8.png", 60}, {"rgb-lossless.webp", 40}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    GError *error = NULL;
    gsize size;
    guint8 *data = load (cases[i].name, &size);
    FluxImage *image;

    data[size - cases[i].from_end] ^= 0x55;
    image = flux_image_decode (data, size, cases[i].name, 0, &error);
    if (image != NULL) { /* WebP has no checksum: other pixels, but no crash */
      g_assert_true (g_str_has_suffix (cases[i].name, ".webp"));
      flux_image_free (image);
    } else {
      g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
      g_clear_error (&error);
    }
    g_free (data);
  }
}

/* A JPEG whose entropy-coded data ends early but which has its end marker: PIL decodes
 * it without a word, we say that it is damaged. */
static void
test_warns (void)
{
  GError *error = NULL;
  gsize size;
  guint8 *data = load ("rgb-444.jpg", &size);
  FluxImage *image;

  data[size / 2] = 0xff;
  data[size / 2 + 1] = 0xd9;
  image = flux_image_decode (data, size, "broken.jpg", 0, &error);
  g_assert_no_error (error);
  g_assert_nonnull (image->warning);
  flux_image_free (image);
  g_free (data);
}

static void
test_max_pixels (void)
{
  static const gchar *const names[] = {"rgb8.png", "rgb-420.jpg", "rgb-lossy.webp"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    GError *error = NULL;
    gsize size;
    guint8 *data = load (names[i], &size);
    JsonObject *want = json_object_get_object_member (expected, names[i]);
    guint64 pixels = json_object_get_int_member (want, "width") *
                     json_object_get_int_member (want, "height");
    FluxImage *image = flux_image_decode (data, size, names[i], pixels, &error);

    g_assert_no_error (error);
    flux_image_free (image);
    image = flux_image_decode (data, size, names[i], pixels - 1, &error);
    g_assert_null (image);
    g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
    g_assert_nonnull (strstr (error->message, "max-pixels"));
    g_clear_error (&error);
    g_free (data);
  }
}

/* A text chunk of 2 GB in a file of some hundred bytes: refused before it is allocated.
 */
static void
test_lying_chunk (void)
{
  GError *error = NULL;
  gsize size;
  guint8 *data = load ("xmp.png", &size);

  g_assert_cmpmem (data + 37, 4, "iTXt", 4);
  data[33] = 0x7f;
  g_test_timer_start ();
  g_assert_null (flux_image_decode (data, size, "lie.png", 0, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  /* Filling 2 GB, which MALLOC_PERTURB_ makes of it, takes seconds. */
  g_assert_cmpfloat (g_test_timer_elapsed (), <, 1.0);
  g_clear_error (&error);
  g_free (data);
}

static void
test_sniff (void)
{
  static const struct {
    const gchar *bytes;
    gsize size;
    FluxImageFormat format;
  } cases[] = {{"\x89PNG\r\n\x1a\n", 8, FLUX_IMAGE_FORMAT_PNG},
      {"\x89PNG\r\n\x1a", 7, FLUX_IMAGE_FORMAT_UNKNOWN},
      {"\xff\xd8\xff\xe0", 4, FLUX_IMAGE_FORMAT_JPEG},
      {"RIFF\4\0\0\0WEBP", 12, FLUX_IMAGE_FORMAT_WEBP},
      {"RIFF\4\0\0\0WAVE", 12, FLUX_IMAGE_FORMAT_UNKNOWN},
      {"GIF89a", 6, FLUX_IMAGE_FORMAT_OTHER}, {"II*\0", 4, FLUX_IMAGE_FORMAT_OTHER},
      {"\0\0\0\x1c"
       "ftypavif",
          12, FLUX_IMAGE_FORMAT_OTHER},
      {"\0\0\0\x1c"
       "ftypisom",
          12, FLUX_IMAGE_FORMAT_UNKNOWN},
      {"", 0, FLUX_IMAGE_FORMAT_UNKNOWN}, {"hello", 5, FLUX_IMAGE_FORMAT_UNKNOWN}};

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    g_assert_cmpint (flux_image_sniff ((const guint8 *)cases[i].bytes, cases[i].size), ==,
        cases[i].format);
}

static void
test_not_a_picture (void)
{
  GError *error = NULL;

  g_assert_null (flux_image_decode ((const guint8 *)"GIF89a", 6, "anim.gif", 0, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT);
  g_assert_nonnull (strstr (error->message, "anim.gif"));
  g_clear_error (&error);
}

/* Lying EXIF: offsets and counts beyond the end. */
static void
test_exif_bounds (void)
{
  static const guint8 good[] = {
      'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0};
  guint8 bytes[sizeof good];

  g_assert_cmpint (flux_image_orientation_from_exif (good, sizeof good), ==, 6);
  for (gsize cut = 0; cut < sizeof good; cut++) {
    guint8 *part = g_memdup2 (good, cut);

    g_assert_cmpint (flux_image_orientation_from_exif (part, cut), ==, 0);
    g_free (part);
  }
  memcpy (bytes, good, sizeof good);
  bytes[4] = 0xff; /* directory far away */
  g_assert_cmpint (flux_image_orientation_from_exif (bytes, sizeof bytes), ==, 0);
  memcpy (bytes, good, sizeof good);
  bytes[8] = 0xff; /* 65281 entries */
  g_assert_cmpint (flux_image_orientation_from_exif (bytes, sizeof bytes), ==, 6);
  bytes[11] = 0x13; /* ... of which none is the orientation */
  g_assert_cmpint (flux_image_orientation_from_exif (bytes, sizeof bytes), ==, 0);
}

static void
add_each (const gchar *prefix, GTestDataFunc function, const gchar *const *names)
{
  GList *all = json_object_get_members (expected);

  for (GList *l = all; l != NULL; l = l->next)
    if (names == NULL || g_strv_contains (names, l->data)) {
      gchar *path = g_strconcat (prefix, l->data, NULL);

      g_test_add_data_func (path, l->data, function);
      g_free (path);
    }
  g_list_free (all);
}

int
main (int argc, char **argv)
{
  static const gchar *const cut[] = {"rgb8.png", "palette4-trns.png",
      "grey16-interlaced.png", "rgb-420.jpg", "progressive-420.jpg", "ycck.jpg",
      "rgb-lossy.webp", "rgba-lossless.webp", "animated.webp", NULL};
  JsonParser *parser = json_parser_new ();
  GError *error = NULL;
  gchar *path;
  int status;

  g_test_init (&argc, &argv, NULL);
  folder = g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "images", NULL);
  path = g_build_filename (folder, "images.json", NULL);
  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  expected = json_object_get_object_member (
      json_node_get_object (json_parser_get_root (parser)), "images");
  add_each ("/image/equals-pil/", test_equals_pil, NULL);
  add_each ("/image/truncated/", test_truncated, cut);
  g_test_add_func ("/image/damaged", test_damaged);
  g_test_add_func ("/image/warns", test_warns);
  g_test_add_func ("/image/max-pixels", test_max_pixels);
  g_test_add_func ("/image/lying-chunk", test_lying_chunk);
  g_test_add_func ("/image/sniff", test_sniff);
  g_test_add_func ("/image/not-a-picture", test_not_a_picture);
  g_test_add_func ("/image/exif-bounds", test_exif_bounds);
  status = g_test_run ();
  g_object_unref (parser);
  g_free (folder);
  g_free (path);
  return status;
}
