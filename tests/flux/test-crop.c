/* Scaling and cropping are PIL's, buckets are near, draws are repeatable.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/image/crop.h"
#include "flux/image/image.h"
#include "flux/image/resample.h"

static JsonObject *expected;
static gchar *folder;

/* Upright RGB pixels of a file in tests/data/images, rows 3 * width bytes apart. */
static guint8 *
load (const gchar *name, gint *width, gint *height)
{
  gchar *path = g_build_filename (folder, name, NULL), *data;
  GError *error = NULL;
  gsize size;
  FluxImage *image;
  guint8 *rgb;

  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  image = flux_image_decode ((guint8 *)data, size, name, 0, &error);
  g_assert_no_error (error);
  flux_image_apply_orientation (image);
  *width = image->width;
  *height = image->height;
  rgb = g_malloc (3 * image->width * image->height);
  flux_image_to_rgb (image, NULL, rgb, 3 * image->width);
  flux_image_free (image);
  g_free (data);
  g_free (path);
  return rgb;
}

static void
assert_sha (const guint8 *data, gsize size, const gchar *want)
{
  gchar *sha = g_compute_checksum_for_data (G_CHECKSUM_SHA256, data, size);

  g_assert_cmpstr (sha, ==, want);
  g_free (sha);
}

static void
test_resize_equals_pil (void)
{
  JsonArray *cases = json_object_get_array_member (expected, "resampled");

  g_assert_cmpuint (json_array_get_length (cases), >=, 60);
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    gint width, height, w = json_object_get_int_member (c, "width");
    gint h = json_object_get_int_member (c, "height");
    guint8 *src = load (json_object_get_string_member (c, "file"), &width, &height);
    guint8 *dst = g_malloc (3 * w * h);

    g_assert_true (flux_image_resample (
        src, width, height, 3 * width, w, h, 0, 0, w, h, dst, 3 * w));
    assert_sha (dst, 3 * w * h, json_object_get_string_member (c, "sha256"));
    g_free (dst);
    g_free (src);
  }
}

/* Resampling only a window gives the pixels of the whole. */
static void
test_window_equals_whole (void)
{
  static const gint sizes[][2] = {
      {80, 70}, {20, 70}, {20, 11}, {37, 50}, {50, 29}, {37, 29}};
  gint width, height;
  guint8 *src = load ("rgb-444.jpg", &width, &height);

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    const gint w = sizes[i][0], h = sizes[i][1];
    guint8 *whole = g_malloc (3 * w * h), part[3 * 9 * 7];

    flux_image_resample (src, width, height, 3 * width, w, h, 0, 0, w, h, whole, 3 * w);
    g_assert_true (flux_image_resample (
        src, width, height, 3 * width, w, h, 5, 3, 9, 7, part, 3 * 9));
    for (gint y = 0; y < 7; y++)
      g_assert_cmpmem (part + y * 27, 27, whole + ((y + 3) * w + 5) * 3, 27);
    g_assert_false (flux_image_resample (
        src, width, height, 3 * width, w, h, w - 8, 3, 9, 7, part, 3 * 9));
    g_free (whole);
  }
  g_free (src);
}

static void
test_cover_equals_torchvision (void)
{
  JsonArray *cases = json_object_get_array_member (expected, "cropped");

  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *c = json_array_get_object_element (cases, i);
    gint width, height, size = json_object_get_int_member (c, "size");
    guint8 *src = load (json_object_get_string_member (c, "file"), &width, &height);
    guint8 *dst = g_malloc (3 * size * size);
    FluxCropOptions o = {.resize = FLUX_RESIZE_COVER, .width = size, .height = size};
    GError *error = NULL;
    FluxCrop crop;

    g_assert_true (flux_crop_plan (&o, width, height, 0, 0, &crop, &error));
    g_assert_cmpint (
        crop.scaled_width, ==, json_object_get_int_member (c, "scaled_width"));
    g_assert_cmpint (
        crop.scaled_height, ==, json_object_get_int_member (c, "scaled_height"));
    g_assert_cmpint (crop.x, ==, json_object_get_int_member (c, "x"));
    g_assert_cmpint (crop.y, ==, json_object_get_int_member (c, "y"));
    g_assert_true (flux_crop_apply (&crop, src, 3 * width, dst, 3 * size, &error));
    assert_sha (dst, 3 * size * size, json_object_get_string_member (c, "sha256"));
    crop.flip = TRUE;
    g_assert_true (flux_crop_apply (&crop, src, 3 * width, dst, 3 * size, &error));
    assert_sha (dst, 3 * size * size, json_object_get_string_member (c, "flipped"));
    g_free (dst);
    g_free (src);
  }
}

static void
assert_size (const FluxCropOptions *o, gint source_width, gint source_height, gint width,
    gint height)
{
  GError *error = NULL;
  gint w, h;

  g_assert_true (flux_crop_get_size (o, source_width, source_height, &w, &h, &error));
  g_assert_no_error (error);
  g_assert_cmpint (w, ==, width);
  g_assert_cmpint (h, ==, height);
}

static void
test_derived_sizes (void)
{
  FluxCropOptions o = {.resize = FLUX_RESIZE_COVER};

  assert_size (&o, 100, 90, 96, 80);
  assert_size (&o, 5, 31, 16, 16);
  o.width = 512;
  assert_size (&o, 1000, 500, 512, 256);
  assert_size (&o, 1000, 520, 512, 272); /* 266.2 is nearer to 272 than to 256 */
  assert_size (&o, 1000, 510, 512, 256); /* 261.1 */
  o.width = 0;
  o.height = 64;
  assert_size (&o, 300, 100, 192, 64);
  o.width = 32;
  assert_size (&o, 300, 100, 32, 64);
}

static void
assert_settings_error (const FluxCropOptions *o, const gchar *part)
{
  GError *error = NULL;

  g_assert_false (flux_crop_check (o, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, part));
  g_clear_error (&error);
}

static void
test_not_a_multiple (void)
{
  FluxCropOptions o = {.resize = FLUX_RESIZE_COVER, .width = 500, .height = 512};

  assert_settings_error (&o, "use 496 or 512");
  o.width = 5;
  assert_settings_error (&o, "use 16");
  o.width = -16;
  assert_settings_error (&o, "range");
  o.width = 496;
  g_assert_true (flux_crop_check (&o, NULL));
  o.resize = FLUX_RESIZE_BUCKET;
  o.bucket_step = 24;
  o.max_area = 512 * 512;
  assert_settings_error (&o, "bucket-step=24");
  o.bucket_step = 64;
  g_assert_true (flux_crop_check (&o, NULL));
  o.max_area = 64 * 64 - 1;
  assert_settings_error (&o, "max-area");
}

static void
test_buckets (void)
{
  FluxCropOptions o = {
      .resize = FLUX_RESIZE_BUCKET, .max_area = 512 * 512, .bucket_step = 64};

  assert_size (&o, 1000, 1000, 512, 512);
  assert_size (&o, 30, 30, 512, 512);
  /* 4:3 = 1.333: 576x448 (1.286) is nearer than 640x384 (1.667). */
  assert_size (&o, 800, 600, 576, 448);
  assert_size (&o, 600, 800, 448, 576);
  assert_size (&o, 1600, 900, 640, 384);
  /* A bucket of an extreme shape, whatever the picture. */
  assert_size (&o, 100000, 1, 4096, 64);
}

/* No bucket that the definition allows is nearer than the one taken. */
static void
test_buckets_are_nearest (void)
{
  FluxCropOptions o = {
      .resize = FLUX_RESIZE_BUCKET, .max_area = 300 * 200, .bucket_step = 16};

  for (gint height = 40; height < 400; height += 37) {
    gint width = 150, w, h;
    gdouble got;

    g_assert_true (flux_crop_get_size (&o, width, height, &w, &h, NULL));
    g_assert_cmpint (w % 16 + h % 16, ==, 0);
    g_assert_cmpint (w * h, <=, o.max_area);
    got = fabs (log ((gdouble)w / h * height / width));
    for (gint a = 16; a <= o.max_area / 16; a += 16) {
      gint b = o.max_area / a / 16 * 16;

      g_assert_cmpfloat (got, <=, fabs (log ((gdouble)a / b * height / width)) + 1e-9);
      g_assert_cmpfloat (got, <=, fabs (log ((gdouble)b / a * height / width)) + 1e-9);
    }
  }
}

static void
test_none_needs_room (void)
{
  FluxCropOptions o = {.resize = FLUX_RESIZE_NONE, .width = 32, .height = 48};
  GError *error = NULL;
  FluxCrop crop;

  g_assert_true (flux_crop_plan (&o, 33, 51, 0, 0, &crop, &error));
  g_assert_cmpint (crop.scaled_width, ==, 33);
  g_assert_cmpint (crop.x, ==, 0); /* round (0.5) is 0, */
  g_assert_cmpint (crop.y, ==, 2); /* round (1.5) is 2, as Python's */
  g_assert_false (flux_crop_plan (&o, 31, 51, 0, 0, &crop, &error));
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH);
  g_clear_error (&error);
}

static void
test_squash_keeps_everything (void)
{
  FluxCropOptions o = {.resize = FLUX_RESIZE_SQUASH, .width = 32, .height = 48};
  FluxCrop crop;

  g_assert_true (flux_crop_plan (&o, 300, 100, 0, 0, &crop, NULL));
  g_assert_cmpint (crop.scaled_width, ==, 32);
  g_assert_cmpint (crop.scaled_height, ==, 48);
  g_assert_cmpint (crop.x + crop.y, ==, 0);
}

/* Draws repeat, reach both ends, and differ between pictures, variants and seeds. */
static void
test_random_draws (void)
{
  FluxCropOptions o = {.resize = FLUX_RESIZE_NONE,
      .width = 16,
      .height = 16,
      .position = FLUX_CROP_RANDOM,
      .flip = FLUX_FLIP_RANDOM,
      .seed = 7};
  guint seen_x[5] = {0}, seen_y[3] = {0}, flips = 0, same_variant = 0, same_seed = 0;

  for (guint64 id = 0; id < 1000; id++) {
    guint64 identity = id * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
    FluxCrop a, b;

    g_assert_true (flux_crop_plan (&o, 20, 18, identity, 0, &a, NULL));
    g_assert_true (flux_crop_plan (&o, 20, 18, identity, 0, &b, NULL));
    g_assert_cmpmem (&a, sizeof a, &b, sizeof b);
    seen_x[a.x]++;
    seen_y[a.y]++;
    flips += a.flip;
    g_assert_true (flux_crop_plan (&o, 20, 18, identity, 1, &b, NULL));
    same_variant += memcmp (&a, &b, sizeof a) == 0;
    o.seed = 8;
    g_assert_true (flux_crop_plan (&o, 20, 18, identity, 0, &b, NULL));
    same_seed += memcmp (&a, &b, sizeof a) == 0;
    o.seed = 7;
  }
  /* Five standard deviations of the binomial distribution. */
  for (guint i = 0; i < 5; i++)
    g_assert_cmpuint (ABS ((gint)seen_x[i] - 200), <, 64);
  for (guint i = 0; i < 3; i++)
    g_assert_cmpuint (ABS ((gint)seen_y[i] - 333), <, 75);
  g_assert_cmpuint (ABS ((gint)flips - 500), <, 80);
  g_assert_cmpuint (same_variant, <, 70); /* 1 in 30 by chance */
  g_assert_cmpuint (same_seed, <, 70);
}

int
main (int argc, char **argv)
{
  JsonParser *parser = json_parser_new ();
  GError *error = NULL;
  gchar *path;
  int status;

  g_test_init (&argc, &argv, NULL);
  folder = g_build_filename (g_getenv ("FLUX_TEST_SRC"), "data", "images", NULL);
  path = g_build_filename (folder, "images.json", NULL);
  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  expected = json_node_get_object (json_parser_get_root (parser));
  g_test_add_func ("/crop/resize-equals-pil", test_resize_equals_pil);
  g_test_add_func ("/crop/window-equals-whole", test_window_equals_whole);
  g_test_add_func ("/crop/cover-equals-torchvision", test_cover_equals_torchvision);
  g_test_add_func ("/crop/derived-sizes", test_derived_sizes);
  g_test_add_func ("/crop/not-a-multiple", test_not_a_multiple);
  g_test_add_func ("/crop/buckets", test_buckets);
  g_test_add_func ("/crop/buckets-are-nearest", test_buckets_are_nearest);
  g_test_add_func ("/crop/none-needs-room", test_none_needs_room);
  g_test_add_func ("/crop/squash-keeps-everything", test_squash_keeps_everything);
  g_test_add_func ("/crop/random-draws", test_random_draws);
  status = g_test_run ();
  g_object_unref (parser);
  g_free (folder);
  g_free (path);
  return status;
}
