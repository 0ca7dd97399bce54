"""What of the picture stays: pixels by hand."""

import pytest
import torch

from nulltext.editing.compositing import changed_share, keep_pixels


def test_an_edit_keeps_the_pixels_where_it_may_not_act_or_changes_nothing():
    picture, unedited = torch.rand(3, 32, 32) - 0.5, torch.rand(3, 32, 32) - 0.5
    mask = torch.zeros(8, 8)
    mask[:, :4] = 1.0
    edited = unedited.clone()
    edited[:, :16] += 0.5  # the upper half changes
    kept = keep_pixels(picture, edited, unedited, mask)
    assert torch.equal(kept[:, :, 18:], picture[:, :, 18:])  # outside the mask
    assert torch.equal(kept[:, 20:], picture[:, 20:])  # nothing changed there
    assert torch.equal(kept[:, :16, :14], edited[:, :16, :14])


def test_blur_is_not_seen_but_a_faint_change_of_a_wide_patch_is():
    picture = torch.zeros(3, 64, 64)
    blur = 0.2 * (-1.0) ** (
        torch.arange(64)[:, None] + torch.arange(64)
    )  # 0.2 up and down, nothing in the mean
    mask = torch.ones(16, 16)
    assert torch.equal(keep_pixels(picture, picture + blur, picture, mask), picture)
    faint = torch.zeros(64, 64)
    faint[:32] = 0.2
    kept = keep_pixels(picture, picture + faint, picture, mask)
    assert torch.equal(kept[:, :28], faint[:28].expand(3, -1, -1))
    assert torch.equal(kept[:, 36:], picture[:, 36:])


def test_a_faint_change_is_seen_where_all_of_a_patch_moves_the_same_way():
    picture, mask = torch.zeros(3, 64, 64), torch.ones(16, 16)
    faint = torch.zeros(64, 64)
    faint[20:, 20:] = -0.12
    kept = keep_pixels(picture, picture + faint, picture, mask)
    torch.testing.assert_close(kept[:, 24:, 24:], faint[24:, 24:].expand(3, -1, -1))
    assert torch.equal(kept[:, :16], picture[:, :16])
    line = torch.zeros(64, 64)
    line[30:34] = 0.12  # narrower than two latents
    assert torch.equal(keep_pixels(picture, picture + line, picture, mask), picture)
    beside = torch.zeros(64, 64)
    beside[:, 32:] = 1.0  # what changes strongly does not make its surroundings wide
    kept = keep_pixels(picture, picture + beside, picture, mask)
    assert torch.equal(kept[:, :, :28], picture[:, :, :28])
    torch.testing.assert_close(kept[:, :, 34:], beside[:, 34:].expand(3, -1, -1))


def test_what_is_left_over_between_changed_pixels_is_the_edits_too():
    picture, mask = torch.zeros(3, 64, 64), torch.ones(16, 16)
    change = torch.ones(64, 64)
    change[30:32] = 0.0  # a line that the edit happens to match
    change[:, 40:] = 0.0
    unlike = picture + change
    unlike[:, 30:32] += 0.01
    kept = keep_pixels(picture, unlike, picture, mask)
    torch.testing.assert_close(kept[:, :, :36], unlike[:, :, :36])
    assert torch.equal(kept[:, :, 44:], picture[:, :, 44:])


def test_the_changed_share_counts_what_can_be_seen_inside_the_mask():
    unedited, mask = torch.zeros(3, 64, 64), torch.zeros(16, 16)
    mask[:, :8] = 1.0
    edited = unedited.clone()
    edited[0, :32] = 0.5
    assert changed_share(edited, unedited, mask) == pytest.approx(0.5, abs=0.05)
    assert changed_share(edited / 5, unedited, mask) == 0.0  # too little to see
    assert changed_share(edited, unedited, torch.zeros(16, 16)) == 0.0


def test_a_changed_shape_is_taken_whole_and_a_faint_one_alone_is_not():
    picture, mask, change = torch.zeros(3, 64, 64), torch.ones(16, 16), torch.zeros(64, 64)
    change[16:28, 16:40] = 1.0
    change[28:44, 20:24] = 0.2  # a leg of the old shape, fainter than what is clear
    change[52:57, 52:57] = 0.2  # as faint, and by itself
    kept = keep_pixels(picture, picture + change, picture, mask)
    torch.testing.assert_close(kept[:, 16:43, 20:24], change[16:43, 20:24].expand(3, -1, -1))
    assert torch.equal(kept[:, 50:], picture[:, 50:])
